/* What right-sizing has to know of a kernel: its shape, and on how few TPCs all of its blocks are there at once. */
#include <fnmatch.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "hw/sm.h"

/* Blocks that are all on the card at once may wait for each other, and few kernels say whether they do (ADR 27). Of these families it is
 * known that they do not: bench/scaling.py runs models that launch them on fewer TPCs than hold their blocks, down to one, and all came to their
 * end (bench/results/h200/scaling.json). Products with as many blocks as there are SMs are most of what a Transformer launches. */
static const char *const independent[] = {
    "nvjet_*",                            /* cuBLAS on Hopper */
    "_ZN7cutlass7Kernel2I*gemm*",         /* and before it, cuDNN's too */
    "sm[89]0_xmma_*",                     /* cuDNN's convolutions and products */
    "cudnn_generated_fort_native_sdpa_*", /* attention */
    "_ZN5cudnn19engines_precompiled*",    /* changes of layout */
    "_ZN5cudnn*bn_fw_inf_*",
    "_ZN8cublasLt19splitKreduce_kernel*",
    "_ZN2at6native*", /* PyTorch's own */
};
/* Of them those that share the last products among blocks, of which one may wait for another. Nothing of the kind was measured. */
static const char *const dependent[] = {"*[sS]tream[kK]*", "*stream_k*", "*ersist*"};

static bool is_one_of(const char *name, const char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

bool lithosd_rightsize_is_independent(const char *name)
{
    return is_one_of(name, independent, LITHOS_ARRAY_SIZE(independent)) &&
           !is_one_of(name, dependent, LITHOS_ARRAY_SIZE(dependent));
}

/* TPCs on which all blocks of a grid are there at once, where that may matter; 0: on any. Such grids are made for the card: of at most a
 * block an SM, or of as many on each as fit. */
static uint32_t least_tpcs(const struct lithosd_tenant *t, const struct lithos_rightsize_kernel *k,
                           uint32_t all)
{
    const struct lithosd_gpu *g = &t->daemon->gpus.gpu[t->gpu[0]];
    const struct lithos_topology *topology = &t->grant.gpus[0].topology;
    const uint32_t own_sms = LITHOS_MAX(all * topology->sms_per_tpc, 1u);
    const uint32_t card_sms = LITHOS_MAX(g->sm_count, 1u);
    const uint64_t tpc_blocks = (uint64_t)topology->sms_per_tpc * k->residency;
    const uint32_t an_sm_each = lithos_rightsize_bound(topology, k, all);
    const bool one_each = k->blocks <= LITHOS_MAX(own_sms, card_sms);
    if (!tpc_blocks)
        return an_sm_each;
    if (k->cluster_blocks > 1)
        return one_each ? an_sm_each : 0;
    const bool is_made_for_card = one_each || (lithos_rightsize_waves(topology, k, all) <= 1 &&
                                               (k->blocks % own_sms == 0 || k->blocks % card_sms == 0));
    if (!is_made_for_card)
        return 0;
    return (uint32_t)LITHOS_MIN(((uint64_t)k->blocks + tpc_blocks - 1) / tpc_blocks, (uint64_t)an_sm_each);
}

void lithosd_rightsize_shape(const struct lithosd_tenant *t, const struct lithos_timeline_launch *l,
                             uint32_t all, struct lithosd_size *row, struct lithos_rightsize_kernel *ret)
{
    const struct lithosd_gpu *g = &t->daemon->gpus.gpu[t->gpu[0]];
    const struct lithos_sm *sm = lithos_sm(g->cc[0], g->cc[1]);
    const unsigned __int128 blocks = (unsigned __int128)l->grid[0] * l->grid[1] * l->grid[2];
    const unsigned __int128 threads = (unsigned __int128)l->block[0] * l->block[1] * l->block[2];
    struct lithos_rightsize_kernel k = {
        .blocks = (uint32_t)LITHOS_MIN(blocks, (unsigned __int128)UINT32_MAX),
        .cluster_blocks = l->cluster_blocks,
    };
    if (sm && threads <= UINT32_MAX)
        k.residency = lithos_sm_blocks(sm, (uint32_t)threads, l->registers, l->shared_bytes);
    if (row->judged != l->function) {
        const char *name = lithosd_names_text(&t->observed->names, l->function);
        row->judged = name ? l->function : 0;
        row->independent = name && lithosd_rightsize_is_independent(name);
    }
    if (!row->independent)
        k.least_tpcs = least_tpcs(t, &k, all);
    *ret = k;
}
