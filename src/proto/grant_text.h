/* A grant as text, for LITHOS_GRANT in a tenant's environment: what it may use when no daemon answers.
 * One GPU: "UUID/own TPCs/valid TPCs/SMs a TPC/bits a GPC/GPCs"; several are joined by ";". */
#pragma once

#include <stddef.h>

#include "proto/arena.h"

/* Room for any grant, the end included. */
#define LITHOS_GRANT_TEXT_MAX (LITHOS_MAX_GPUS * (2u * LITHOS_TPCSET_TEXT_MAX + 96u))

/* 0, or -ENOSPC when it does not fit (text is then untouched). The epoch is not part of it. */
int lithos_grant_format(const struct lithos_grant *g, char *text, size_t size);
/* The reverse, validated; epoch 0. 0; -EINVAL for text of another form or a grant that lithos_grant_validate
 * refuses. */
int lithos_grant_parse(const char *text, struct lithos_grant *ret_grant);
