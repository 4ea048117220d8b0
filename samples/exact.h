/* Within lithos-exact. */
#pragma once

#include "samples/sample.h"

#define BLOCKS_MAX (1u << 16)
#define INFO_WORDS 1024u

struct exact {
    struct sample_context ctx;
    CUfunction mark;
    CUdeviceptr out, out2, copy, info; /* a word a block, but for info */
    CUstream other;
    CUevent event;
    uint32_t *got;
    unsigned checks, wrong, block; /* threads of one */
    int cc_major;
};

struct shape {
    unsigned grid[3], cluster[3];
};

unsigned exact_blocks(const struct shape *s);
/* Each of the first n words must be `want`. */
void exact_compare(struct exact *e, const uint32_t *got, unsigned n, uint32_t want, const char *what);
/* The same of those at out, once the card is done. */
void exact_check(struct exact *e, unsigned n, uint32_t want, const char *what);
/* Zeros at out and out2. */
void exact_clear(const struct exact *e);
/* Each block adds 1 to its word at out. attribute: of the launch, or 0. */
void exact_launch(struct exact *e, const struct shape *s, CUstream stream);
void exact_launch_ex(struct exact *e, const struct shape *s, CUstream stream, int attribute, int value);

/* ---- exact_graphs.c */
void exact_graphs_open(void);
void exact_graphs(struct exact *e);
/* One that is never destroyed: it goes with its context. */
void exact_graph_left(struct exact *e);
