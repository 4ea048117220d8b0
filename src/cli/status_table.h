/* The status document as text for people. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* 0 or -ENOMEM. */
int lithos_status_print(const json_t *document, FILE *out);
