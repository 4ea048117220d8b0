/* Graphs laid out in one line, those within them too: each node behind those that it waits for. */
#include <stdlib.h>

#include "vgpu/client/graph.h"

static int rising(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void vgpu_flat_free(struct vgpu_flat_graph *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        free(f->nodes[i].deps);
    free(f->nodes);
}

static CUresult flat_add(struct vgpu_flat_graph *f, struct CUgraphNode_st *node, uint32_t *deps,
                         uint32_t count)
{
    if (f->count == f->room) {
        uint32_t room = f->room ? 2 * f->room : 16;
        struct vgpu_flat *more = realloc(f->nodes, room * sizeof *more);
        if (!more)
            return CUDA_ERROR_OUT_OF_MEMORY;
        f->nodes = more;
        f->room = room;
    }
    qsort(deps, count, sizeof *deps, rising);
    node->place = f->count;
    f->nodes[f->count++] = (struct vgpu_flat){.node = node, .deps = deps, .dep_count = count};
    return CUDA_SUCCESS;
}

static CUresult flatten(const struct CUgraph_st *g, const uint32_t *outer, uint32_t outer_count,
                        struct vgpu_flat_graph *f);

/* Its inner nodes first; itself is what waits for them all. */
static CUresult flatten_node(struct CUgraphNode_st *n, const uint32_t *outer, uint32_t outer_count,
                             struct vgpu_flat_graph *f)
{
    uint32_t before = f->count, count = n->deps.count ? n->deps.count : outer_count;
    uint32_t *deps = calloc(LITHOS_MAX(count, 1u), sizeof *deps);
    if (!deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < count; i++)
        deps[i] = n->deps.count ? n->deps.node[i]->place : outer[i];
    CUresult r = n->child ? flatten(n->child, deps, count, f) : CUDA_SUCCESS;
    if (!r && f->count > before) {
        uint32_t inner = f->count - before;
        uint32_t *more = realloc(deps, (count + inner) * sizeof *deps);
        deps = more ? more : deps;
        r = more ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
        for (uint32_t i = 0; more && i < inner; i++)
            deps[count++] = before + i;
    }
    if (!r)
        r = flat_add(f, n, deps, count);
    if (r)
        free(deps);
    return r;
}

/* outer: places that its first nodes wait for. */
static CUresult flatten(const struct CUgraph_st *g, const uint32_t *outer, uint32_t outer_count,
                        struct vgpu_flat_graph *f)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers */
    struct CUgraphNode_st **order = calloc(LITHOS_MAX(g->nodes.count, 1u), sizeof *order);
    CUresult r = order ? vgpu_graph_order(g, order) : CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; !r && i < g->nodes.count; i++)
        r = flatten_node(order[i], outer, outer_count, f);
    free(order);
    return r;
}

CUresult vgpu_flatten(const struct CUgraph_st *g, struct vgpu_flat_graph *f)
{
    return flatten(g, NULL, 0, f);
}
