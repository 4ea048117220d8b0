/* Is what happened right? Checkers apart from the scheduler: they know the tenants' TPCs and see grants, launches and
 * what the card did with them, and nothing of what the scheduler thinks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hw/tpcgrant.h"

#define LITHOS_CHECK_TENANTS_MAX 16u
#define LITHOS_CHECK_TEXT_BYTES 192u

enum lithos_check_rule {
    LITHOS_CHECK_TWO_OWNERS, /* a TPC lent to two tenants at a time */
    LITHOS_CHECK_OWN_QUOTA,  /* a tenant's own TPCs are not in its grant */
    LITHOS_CHECK_GRANT,      /* a grant that does not validate */
    LITHOS_CHECK_ONCE,       /* blocks of a kernel that ran not at all, or twice */
    LITHOS_CHECK_ORDER,      /* a kernel before the one before it on its stream */
    LITHOS_CHECK_HANG,       /* a mask that names no TPC, or has no room for a cluster */
    LITHOS_CHECK_LATE_LOAN,  /* work of others sent to an owner's TPCs after it came back */
    LITHOS_CHECK_OWNER_WAIT, /* an owner waited longer than what was in its way took */
    LITHOS_CHECK_CONSERVED,  /* TPCs lie idle and a tenant has work for them */
    LITHOS_CHECK_STARVED,    /* work does not get to run */
    LITHOS_CHECK_PROGRESS,   /* not all is done when the faults are over */
    LITHOS_CHECK_RULE_MAX,
};

struct lithos_check_report {
    uint64_t fired[LITHOS_CHECK_RULE_MAX];
    uint64_t checks;                     /* made */
    char first[LITHOS_CHECK_TEXT_BYTES]; /* what the first one said */
};

/* "two_owners", ...; never NULL. */
const char *lithos_check_rule_name(enum lithos_check_rule rule);
