/* On how few TPCs a tenant's kernels are to run (docs/rightsizing.md): core/rightsize.h is fed with what the rings say, and what
 * it advises stands in the size tables of the tenant's arenas. Tenants of class high with one GPU that have said a slip. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/rightsize.h"
#include "core/timeline.h"
#include "proto/records.h"
#include "proto/sizes.h"

struct lithosd;
struct lithosd_tenant;
struct lithosd_process;

/* A tenant's. */
struct lithosd_rightsize {
    struct lithos_rightsize *core; /* in memory of its own */
    uint32_t slip_ppm;             /* as asked for, the last time that it was more than 1 */
    bool paused;                   /* its slip was switched off: what is known stays */
    bool off;                      /* its arenas say that all launches have all TPCs */
    bool begun;                    /* a request has been seen to end */
    uint64_t foreign_until_ns;     /* others' work may be on its TPCs until then */
    struct lithos_tpcset kept;     /* its launches keep to these; empty: to what they need */
    uint64_t kept_ns;              /* since then */
    struct lithos_tpcset strip;    /* others may have these, */
    uint64_t bears_ns;             /* with work that is over in so long, */
    uint64_t strip_told_ns;        /* and since then its launches have been told to keep off them */
    uint64_t spoilt;               /* requests that were neither one thing nor the other */
};

/* ---- rightsize.c ---- */

/* What it asked for, its class or its quota may have changed; or it is new. */
void lithosd_rightsize_renew(struct lithosd_tenant *t);
void lithosd_rightsize_ended(struct lithosd_tenant *t);
/* Why it is not right-sized, though it said a slip; NULL: it is. */
const char *lithosd_rightsize_why_not(const struct lithosd_tenant *t);
/* A kernel of another tenant's has ended: it may have been on its strip. */
void lithosd_rightsize_took(const struct lithosd_tenant *other, const struct lithos_kernel_event *k);
/* A process has its arena; is about to lose it. */
void lithosd_rightsize_attach(struct lithosd_process *p);
void lithosd_rightsize_detach(struct lithosd_process *p);
/* By what the process looks up a launch; 0: it does not. */
uint64_t lithosd_rightsize_key(const struct lithosd_tenant *t, const struct lithos_record *r);
/* A launch was read (l NULL: of a graph), or a wait that is over; a kernel has ended. */
void lithosd_rightsize_launch(struct lithosd_process *p, const struct lithos_record *r,
                              const struct lithos_timeline_launch *l);
void lithosd_rightsize_sync(struct lithosd_process *p, const struct lithos_record *r);
void lithosd_rightsize_kernel(struct lithosd_tenant *t, const struct lithos_kernel_event *k);
/* TPCs that its launches keep off, and others may have; empty: none. */
struct lithos_tpcset lithosd_rightsize_strip(const struct lithosd_tenant *t);
/* Another's launch or atom goes to those TPCs of a GPU. */
void lithosd_rightsize_beside(struct lithosd *d, unsigned gpu, const struct lithos_tpcset *tpcs);
/* After a look at all rings and stamps. */
void lithosd_rightsize_look(struct lithosd *d);

/* What a process was told of an operator. */
struct lithosd_size {
    uint64_t key; /* 0: free */
    uint64_t function, launches;
    uint64_t judged;  /* the function whose name was looked at; 0: none yet */
    bool independent; /* its blocks are known not to wait for each other */
    uint32_t of;      /* TPCs it could have had */
    enum lithos_rightsize_why why;
    struct lithos_size size;
};

/* Since its thread waited last: a request, as far as lithosd can tell. */
struct lithosd_request {
    uint64_t begin_ns; /* 0: none */
    uint32_t launches;
    uint32_t narrow, wide; /* launches on fewer TPCs; on all, though fewer were known to be enough */
};

/* A process's. */
struct lithosd_sizes {
    struct lithosd_request request[LITHOS_RECORD_RINGS]; /* by thread */
    uint32_t next[LITHOS_SIZE_SETS];                     /* the way that makes room */
    struct lithosd_size row[LITHOS_SIZE_ROWS];
};

/* ---- rightsize_kernel.c ---- */

/* A launch as core/rightsize.h knows kernels, but for its key. row: what its process was told of it, where what its name says is kept; all: TPCs it
 * could have. */
void lithosd_rightsize_shape(const struct lithosd_tenant *t, const struct lithos_timeline_launch *l,
                             uint32_t all, struct lithosd_size *row, struct lithos_rightsize_kernel *ret);
/* Is a function of that name one of a family whose blocks are known never to wait for each other? */
bool lithosd_rightsize_is_independent(const char *name);

/* ---- rightsize_status.c ---- */

/* "rightsize" of a tenant in docs/status.md. */
json_t *lithosd_rightsize_status(const struct lithosd_tenant *t);
