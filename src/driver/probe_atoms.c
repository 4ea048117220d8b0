/* The atoms' self-test: kernels whose blocks count themselves are run in parts, in every way that atoms are, and each block must
 * have run once. In the probe's own process: where it goes wrong, a context of nobody's is lost. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "driver/atom_test.h"
#include "driver/loader.h"
#include "driver/prelude.h"
#include "driver/probe_internal.h"
#include "hw/atom.h"
#include "hw/qmd_atom.h"

#define BLOCKS_MAX 4096u
#define ENTRIES 64u
#define EVERY UINT32_MAX
#define CHAIN_CC_MAJOR 9
#define STRAGGLER_NS 2000000u
/* A kernel that fills the card: waves of blocks that stay for so long, and the atoms it is cut into. Launching them must take less
 * than running them. */
#define WORK_NS 50000u
#define WORK_SM_BLOCKS 16u
#define WORK_WAVES 16u
#define WORK_ATOMS 32u
#define WORK_REPEATS 2
/* Of an exit: some 60 were measured (docs/hardware.md, "Atoms"). Outside of this the card was not ours alone. */
#define EXIT_PS_MIN 10u
#define EXIT_PS_MAX 2000u

#define MORE_CUDA(X)                                                                       \
    X(launch_ex, cuLaunchKernelEx, (const CUlaunchConfig *, CUfunction, void **, void **)) \
    X(host_alloc, cuMemHostAlloc, (void **, size_t, unsigned))                             \
    X(host_free, cuMemFreeHost, (void *))                                                  \
    X(mem_write, cuMemcpyHtoD_v2, (CUdeviceptr, const void *, size_t))                     \
    X(event_create, cuEventCreate, (CUevent *, unsigned))                                  \
    X(event_destroy, cuEventDestroy_v2, (CUevent))                                         \
    X(event_record, cuEventRecord, (CUevent, CUstream))                                    \
    X(stream_wait, cuStreamWaitEvent, (CUstream, CUevent, unsigned))

static struct {
    struct lithos_prelude_cuda prelude;
#define X(member, name, parameters) CUresult(*member) parameters;
    MORE_CUDA(X)
#undef X
} more;

/* What the callback does to the next QMD. */
static struct {
    bool locate;
    struct lithos_qmd_atom part;
    uint64_t entry; /* where the QMD's kernel lies */
    int result;
} edit;

struct test {
    struct lithos_probe_bench b;
    struct lithos_probe_gpu *gpu;
    const struct lithos_prelude_row *row;
    CUmodule module, prelude;
    CUfunction mark, sum, time, work;
    CUdeviceptr out, ret, pinned, pool;
    struct lithos_prelude_entry *entries; /* pinned */
    CUstream other;
    CUevent event;
    uint64_t code;
    uint64_t mark_entry, work_entry;
};

/* A kernel in parts. */
struct way {
    uint32_t grid[3], cluster[3]; /* blocks */
    uint32_t atoms;
    bool chained, pool, default_stream;
    bool stepwise; /* look at the blocks after each part: both of its ends */
    uint32_t straggler;
};

static void on_atom_qmd(const struct lithos_qmd_layout *layout, void *qmd)
{
    edit.entry = lithos_qmd_entry(layout, qmd);
    if (edit.locate)
        edit.part.code = edit.entry;
    edit.result = lithos_qmd_set_atom(layout, qmd, &edit.part);
}

static int failed(struct test *t, const char *what, CUresult result)
{
    return lithos_probe_fail(t->gpu->atoms_why, -EIO, "%s fails with %s", what,
                             lithos_probe_result_name(result));
}

/* ---- what it needs ---- */

static int find_functions(struct test *t)
{
#define X(member, name, parameters)                                                 \
    if (!(more.TABLE member = (CUresult(*) parameters)lithos_driver_symbol(#name))) \
        return lithos_probe_fail(t->gpu->atoms_why, -ENOTSUP, "the driver has no " #name ": it is too old");
#define TABLE
    MORE_CUDA(X)
#undef TABLE
#define TABLE prelude.
    LITHOS_PRELUDE_CUDA(X)
#undef TABLE
#undef X
    return 0;
}

/* Entries in pinned memory and, a copy, in the GPU's. */
static int make_memory(struct test *t)
{
    void *entries = NULL;
    CUresult r = more.host_alloc(&entries, ENTRIES * sizeof *t->entries, CU_MEMHOSTALLOC_DEVICEMAP);
    t->entries = entries;
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.host_pointer(&t->pinned, entries, 0);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.mem_alloc(
            &t->pool, LITHOS_MAX(ENTRIES * sizeof *t->entries, (size_t)LITHOS_PRELUDE_SCRATCH_BYTES));
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.mem_alloc(&t->out, BLOCKS_MAX * sizeof(uint32_t));
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.mem_alloc(&t->ret, 64);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.stream_create(&t->other, CU_STREAM_NON_BLOCKING, 0);
    if (r == CUDA_SUCCESS)
        r = more.event_create(&t->event, CU_EVENT_DISABLE_TIMING);
    return r == CUDA_SUCCESS ? 0 : failed(t, "memory for the test", r);
}

static int load_kernels(struct test *t)
{
    CUresult r = lithos_probe_cu.module_load(&t->module, LITHOS_ATOM_TEST_PTX);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.module_function(&t->mark, t->module, LITHOS_ATOM_MARK);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.module_function(&t->sum, t->module, LITHOS_ATOM_SUM);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.module_function(&t->time, t->module, LITHOS_ATOM_TIME);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.module_function(&t->work, t->module, LITHOS_ATOM_WORK);
    return r == CUDA_SUCCESS ? 0 : failed(t, "the module of the test", r);
}

static void finish(struct test *t)
{
    lithos_probe_seen.edit = NULL;
    if (t->event)
        more.event_destroy(t->event);
    if (t->other)
        lithos_probe_cu.stream_destroy(t->other);
    if (t->ret)
        lithos_probe_cu.mem_free(t->ret);
    if (t->out)
        lithos_probe_cu.mem_free(t->out);
    if (t->pool)
        lithos_probe_cu.mem_free(t->pool);
    if (t->entries)
        more.host_free(t->entries);
    if (t->prelude)
        lithos_probe_cu.module_unload(t->prelude);
    if (t->module)
        lithos_probe_cu.module_unload(t->module);
    lithos_probe_bench_finish(&t->b);
}

/* ---- launching ---- */

static CUresult launch(const struct test *t, CUfunction f, const uint32_t grid[3], const uint32_t cluster[3],
                       uint32_t threads, bool overlap, CUstream stream, void **params)
{
    CUlaunchAttribute attributes[2];
    CUlaunchConfig c = {.gridDimX = grid[0],
                        .gridDimY = grid[1],
                        .gridDimZ = grid[2],
                        .blockDimX = threads,
                        .blockDimY = 1,
                        .blockDimZ = 1,
                        .hStream = stream,
                        .attrs = attributes};
    if (cluster[0] * cluster[1] * cluster[2] > 1)
        attributes[c.numAttrs++] =
            (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                .value.clusterDim = {cluster[0], cluster[1], cluster[2]}};
    if (overlap)
        attributes[c.numAttrs++] =
            (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                .value.programmaticStreamSerializationAllowed = 1};
    lithos_probe_seen.masked = false;
    lithos_probe_seen.seen = 0;
    lithos_probe_seen.cc_major = t->gpu->cc_major;
    lithos_probe_seen.cc_minor = t->gpu->cc_minor;
    edit.result = -ENODATA;
    lithos_probe_seen.in_census = lithos_probe_seen.edit != NULL;
    CUresult r = more.launch_ex(&c, f, params, NULL);
    lithos_probe_seen.in_census = false;
    return r;
}

static CUresult launch_plain(const struct test *t, CUfunction f, uint32_t threads, CUstream stream,
                             void **params)
{
    static const uint32_t one[3] = {1, 1, 1};
    lithos_probe_seen.edit = NULL;
    return launch(t, f, one, one, threads, false, stream, params);
}

/* As `part` says. */
static int launch_part(struct test *t, CUfunction f, const struct way *w, bool overlap, void **params)
{
    lithos_probe_seen.edit = on_atom_qmd;
    CUresult r = launch(t, f, w->grid, w->cluster, f == t->work ? 128 : 32, overlap,
                        w->default_stream ? NULL : t->b.stream, params);
    lithos_probe_seen.edit = NULL;
    if (edit.result < 0)
        return lithos_probe_fail(t->gpu->atoms_why, -EIO,
                                 "a queue descriptor cannot be made that of a part: %s",
                                 strerror(-edit.result));
    return r == CUDA_SUCCESS
               ? 0
               : lithos_probe_fail(t->gpu->atoms_why, -EIO, "a launch of a part%s%s%s fails with %s",
                                   w->default_stream ? " on the default stream" : "",
                                   overlap ? ", allowed to overlap," : "",
                                   edit.part.pre_exit ? ", with pre-exit," : "", lithos_probe_result_name(r));
}

static int sync(struct test *t, const char *what)
{
    CUresult r = lithos_probe_cu.ctx_sync();
    return r == CUDA_SUCCESS ? 0 : failed(t, what, r);
}

/* Where a kernel's code lies: one block of it is launched. */
static int locate_kernel(struct test *t, CUfunction f, void **params, uint64_t *ret_entry)
{
    static const struct way one = {.grid = {1, 1, 1}, .cluster = {1, 1, 1}};
    edit.part = (struct lithos_qmd_atom){.hi = 1};
    int r = launch_part(t, f, &one, false, params);
    *ret_entry = edit.entry;
    return r;
}

/* Where the prelude's code lies: launched once, with an entry that nothing survives. Also where the test's kernels do. */
static int locate(struct test *t)
{
    static const struct way one = {.grid = {1, 1, 1}, .cluster = {1, 1, 1}};
    CUfunction kernel;
    int r = lithos_prelude_load(&more.prelude, t->row, &t->prelude, &kernel, t->gpu->atoms_why,
                                sizeof t->gpu->atoms_why);
    if (r < 0)
        return r;
    t->entries[0] = (struct lithos_prelude_entry){.lo = LITHOS_PRELUDE_NOTHING};
    edit.locate = true;
    edit.part = (struct lithos_qmd_atom){.hi = 1, .entry = t->pinned};
    void *params[] = {&t->pool};
    r = launch_part(t, kernel, &one, false, params);
    edit.locate = false;
    t->code = edit.entry;
    if (r == 0)
        r = sync(t, "the prelude by itself");
    uint32_t nobody = UINT32_MAX, no_ns = 0;
    void *mark[] = {&t->out, &nobody, &no_ns}, *work[] = {&no_ns};
    if (r == 0)
        r = locate_kernel(t, t->mark, mark, &t->mark_entry);
    if (r == 0)
        r = locate_kernel(t, t->work, work, &t->work_entry);
    return r == 0 ? sync(t, "the kernels of the test") : r;
}

/* ---- exactly once ---- */

static CUresult clear(const struct test *t)
{
    CUresult r = lithos_probe_cu.mem_set(t->out, 0, BLOCKS_MAX);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.mem_set(t->ret, 0, 16);
    return r == CUDA_SUCCESS ? lithos_probe_cu.ctx_sync() : r;
}

static struct lithos_cut cut_of(const struct way *w)
{
    uint32_t units[3];
    for (int i = 0; i < 3; i++)
        units[i] = w->grid[i] / w->cluster[i];
    return lithos_cut_make(units, w->cluster[1] * w->cluster[2] == 1, w->atoms);
}

/* As the launches' entries are (atoms_qmd.c). */
static struct lithos_prelude_entry entry_of(const struct test *t, const struct way *w,
                                            const struct lithos_cut *cut, const struct lithos_part *p)
{
    uint32_t blocks = cut->line ? w->cluster[0] : w->cluster[cut->dim];
    struct lithos_prelude_entry e = {.lo = p->lo * blocks, .target = t->mark_entry};
    if (cut->line) {
        e.span = (p->hi - p->lo) * blocks;
        e.width = w->grid[0];
        e.height = w->grid[1];
    }
    return e;
}

/* Entries for all parts, as the launches find them. */
static int put_entries(struct test *t, const struct way *w, const struct lithos_cut *cut)
{
    for (uint32_t i = 0; i < cut->count; i++) {
        struct lithos_part p = lithos_cut_part(cut, i);
        t->entries[1 + i] = entry_of(t, w, cut, &p);
    }
    CUresult r =
        w->pool ? more.mem_write(t->pool, t->entries, (1 + cut->count) * sizeof *t->entries) : CUDA_SUCCESS;
    return r == CUDA_SUCCESS ? 0 : failed(t, "a copy of the entries", r);
}

static int describe(struct test *t, const struct way *w, uint32_t block, uint32_t ran, uint32_t due)
{
    return lithos_probe_fail(
        t->gpu->atoms_why, -EIO,
        "block %u of a grid of %ux%ux%u (clusters of %ux%ux%u) ran %u times instead of "
        "%u, cut into %u%s%s%s%s",
        block, w->grid[0], w->grid[1], w->grid[2], w->cluster[0], w->cluster[1], w->cluster[2], ran, due,
        w->atoms, w->chained ? ", chained" : "", w->pool ? ", entries in the GPU's memory" : "",
        w->default_stream ? ", default stream" : "", w->stepwise ? ", part by part" : "");
}

/* Blocks of the first `units` have run once, the others not at all. Units follow one another in the line: slices of the slowest
 * dimension, or blocks (of a cluster along x). */
static int compare(struct test *t, const struct way *w, const struct lithos_cut *cut, uint32_t units)
{
    static uint32_t out[BLOCKS_MAX];
    uint32_t blocks = w->grid[0] * w->grid[1] * w->grid[2];
    uint32_t slice = cut->line ? w->cluster[0] : blocks / w->grid[cut->dim] * w->cluster[cut->dim];
    CUresult r = lithos_probe_cu.mem_read(out, t->out, blocks * sizeof *out);
    if (r != CUDA_SUCCESS)
        return failed(t, "reading what the blocks did", r);
    for (uint32_t b = 0; b < blocks; b++) {
        uint32_t due = b / slice < units;
        if (out[b] != due)
            return describe(t, w, b, out[b], due);
    }
    return 0;
}

/* Into `edit`: what the callback is to make of the next launch. */
static void prepare_part(const struct test *t, const struct way *w, const struct lithos_cut *cut, uint32_t i)
{
    struct lithos_part p = lithos_cut_part(cut, i);
    unsigned kind = cut->line ? LITHOS_PRELUDE_LINE : cut->dim;
    edit.part = (struct lithos_qmd_atom){
        .dim = cut->dim,
        .hi = p.side,
        .code = p.has_exits ? t->code + (uint64_t)kind * LITHOS_PRELUDE_STRIDE : 0,
        .entry = (w->pool ? t->pool : t->pinned) + (1ull + i) * sizeof *t->entries,
        .pre_exit = w->chained && i + 1 < cut->count,
    };
}

static int launch_parts(struct test *t, const struct way *w, const struct lithos_cut *cut)
{
    uint32_t spin_ns = STRAGGLER_NS, straggler = w->straggler;
    void *params[] = {&t->out, &straggler, &spin_ns};
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < cut->count; i++) {
        prepare_part(t, w, cut, i);
        r = launch_part(t, t->mark, w, w->chained && i, params);
        if (r == 0 && w->stepwise)
            r = sync(t, "a part of a kernel");
        if (r == 0 && w->stepwise)
            r = compare(t, w, cut, lithos_cut_part(cut, i).hi);
    }
    return r;
}

static int run(struct test *t, const struct way *w)
{
    struct lithos_cut cut = cut_of(w);
    CUresult result = clear(t);
    int r = result == CUDA_SUCCESS ? put_entries(t, w, &cut) : failed(t, "clearing the results", result);
    if (r == 0)
        r = launch_parts(t, w, &cut);
    char what[160];
    snprintf(what, sizeof what, "a kernel of %ux%ux%u blocks in %u parts%s%s%s", w->grid[0], w->grid[1],
             w->grid[2], cut.count, w->chained ? ", chained," : "",
             w->pool ? ", entries in the GPU's memory," : "", w->default_stream ? ", default stream," : "");
    if (r == 0)
        r = sync(t, what);
    return r == 0 ? compare(t, w, &cut, cut.units) : r;
}

/* Every kind of prelude, entries in either memory, chained and not, clusters along each dimension; each a few times at most, since
 * beside a program outside of MPS each wait takes a turn. */
static int run_grids(struct test *t)
{
    static const struct way ways[] = {
        {{1000, 1, 1}, {1, 1, 1}, .atoms = 3, .stepwise = true},
        {{1000, 1, 1}, {1, 1, 1}, .atoms = 7, .chained = true, .pool = true},
        {{7, 130, 1}, {1, 1, 1}, .atoms = 16, .chained = true, .default_stream = true},
        {{5, 3, 70}, {1, 1, 1}, .atoms = 2, .pool = true, .stepwise = true},
        {{1, 33, 1}, {1, 1, 1}, .atoms = 33, .chained = true, .pool = true, .default_stream = true},
        {{700, 3, 1}, {1, 1, 1}, .atoms = 5, .stepwise = true}, /* in the line from here */
        {{1900, 2, 1}, {1, 1, 1}, .atoms = 7, .chained = true, .pool = true},
        {{40, 25, 4}, {1, 1, 1}, .atoms = 16, .chained = true, .default_stream = true},
        {{2000, 1, 1}, {2, 1, 1}, .atoms = 7, .chained = true, .pool = true}, /* clusters from here */
        {{8, 60, 1}, {4, 2, 1}, .atoms = 3, .chained = true, .stepwise = true},
        {{3, 4, 40}, {1, 1, 2}, .atoms = 16, .chained = true, .pool = true, .default_stream = true},
        {{1000, 3, 1}, {4, 1, 1}, .atoms = 7, .chained = true, .pool = true},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < LITHOS_ARRAY_SIZE(ways); i++) {
        struct way w = ways[i];
        w.straggler = EVERY;
        if (t->gpu->cc_major < CHAIN_CC_MAJOR) {
            if (w.cluster[0] * w.cluster[1] * w.cluster[2] > 1)
                continue;
            w.chained = false;
        }
        r = run(t, &w);
    }
    return r;
}

/* ---- what comes behind ---- */

/* With a block in an early atom that takes its time: a kernel behind the last one, on the same stream or on one that waits for an
 * event, must find all blocks done. */
static int run_behind(struct test *t, bool default_stream, bool by_event, uint32_t straggler)
{
    struct way w = {.grid = {400, 1, 1},
                    .cluster = {1, 1, 1},
                    .atoms = 8,
                    .chained = true,
                    .straggler = straggler,
                    .default_stream = default_stream,
                    .pool = true};
    struct lithos_cut cut = cut_of(&w);
    CUstream stream = default_stream ? NULL : t->b.stream;
    uint32_t n = w.grid[0], sum = 0;
    void *params[] = {&t->out, &t->ret, &n};
    CUresult result = clear(t);
    int r = result == CUDA_SUCCESS ? put_entries(t, &w, &cut) : failed(t, "clearing the results", result);
    if (r == 0)
        r = launch_parts(t, &w, &cut);
    if (r < 0)
        return r;
    if (by_event) {
        result = more.event_record(t->event, stream);
        if (result == CUDA_SUCCESS)
            result = more.stream_wait(t->other, t->event, 0);
        stream = t->other;
    }
    if (result == CUDA_SUCCESS)
        result = launch_plain(t, t->sum, 64, stream, params);
    if (result == CUDA_SUCCESS)
        result = lithos_probe_cu.ctx_sync();
    if (result == CUDA_SUCCESS)
        result = lithos_probe_cu.mem_read(&sum, t->ret, sizeof sum);
    if (result != CUDA_SUCCESS)
        return failed(t, "a kernel behind chained parts", result);
    if (sum != n)
        return lithos_probe_fail(
            t->gpu->atoms_why, -EIO,
            "a kernel behind chained parts%s%s found %u of %u blocks done: block %u took long",
            default_stream ? " on the default stream" : "", by_event ? " and an event" : "", sum, n,
            straggler);
    return compare(t, &w, &cut, cut.units);
}

static int run_all_behind(struct test *t)
{
    static const uint32_t stragglers[] = {3, 120, 349, 3};
    int r = 0;
    for (size_t i = 0; r == 0 && i < LITHOS_ARRAY_SIZE(stragglers); i++)
        r = run_behind(t, i & 1, i & 2, stragglers[i]);
    return r;
}

/* ---- what an exit costs ---- */

/* GPU time of a kernel that fills the card for WORK_WAVES waves, in so many atoms. */
static int time_work(struct test *t, uint32_t blocks, uint32_t atoms, uint64_t *ret_ns, uint64_t *ret_exits)
{
    const struct way w = {.grid = {blocks, 1, 1},
                          .cluster = {1, 1, 1},
                          .atoms = atoms,
                          .pool = true,
                          .chained = t->gpu->cc_major >= CHAIN_CC_MAJOR};
    struct lithos_cut cut = cut_of(&w);
    uint32_t work_ns = WORK_NS;
    uint64_t times[2] = {0, 0};
    CUdeviceptr second = t->ret + sizeof times[0];
    void *first_param[] = {&t->ret}, *second_param[] = {&second}, *work[] = {&work_ns};
    int r = put_entries(t, &w, &cut);
    CUresult result = r < 0 ? CUDA_SUCCESS : launch_plain(t, t->time, 1, t->b.stream, first_param);
    *ret_exits = 0;
    for (uint32_t i = 0; r == 0 && result == CUDA_SUCCESS && i < cut.count; i++) {
        *ret_exits += lithos_cut_part(&cut, i).lo;
        prepare_part(t, &w, &cut, i);
        r = launch_part(t, t->work, &w, w.chained && i, work);
    }
    if (r < 0)
        return r;
    if (result == CUDA_SUCCESS)
        result = launch_plain(t, t->time, 1, t->b.stream, second_param);
    if (result == CUDA_SUCCESS)
        result = lithos_probe_cu.ctx_sync();
    if (result == CUDA_SUCCESS)
        result = lithos_probe_cu.mem_read(times, t->ret, sizeof times);
    if (result != CUDA_SUCCESS)
        return failed(t, "a kernel that fills the GPU", result);
    *ret_ns = times[1] > times[0] ? times[1] - times[0] : 0;
    return 0;
}

/* The same kernel whole and in atoms, as they are used: behind one another, the card full. The shortest of a few, since others may be
 * on the card; what makes no sense is not told, and then something usual is assumed. */
static int measure_exits(struct test *t)
{
    uint32_t blocks = (uint32_t)t->gpu->sm_count * WORK_SM_BLOCKS * WORK_WAVES;
    uint64_t whole_ns = UINT64_MAX, cut_ns = UINT64_MAX, exits = 0, ns = UINT64_MAX;
    int r = 0;
    t->mark_entry = t->work_entry;
    for (int i = 0; r == 0 && i < 2 * WORK_REPEATS; i++) {
        r = time_work(t, blocks, i % 2 ? WORK_ATOMS : 1, &ns, &exits);
        uint64_t *best = i % 2 ? &cut_ns : &whole_ns;
        *best = LITHOS_MIN(*best, ns);
    }
    if (r < 0)
        return r;
    lithos_info("a kernel of %u blocks took %llu ns whole and %llu ns in %u atoms, with %llu exits", blocks,
                (unsigned long long)whole_ns, (unsigned long long)cut_ns, WORK_ATOMS,
                (unsigned long long)exits);
    uint64_t ps = cut_ns > whole_ns && exits ? (cut_ns - whole_ns) * 1000 / exits : 0;
    t->gpu->exit_ps = ps >= EXIT_PS_MIN && ps <= EXIT_PS_MAX ? (uint32_t)ps : 0;
    return 0;
}

/* ---- the whole ---- */

static int run_tests(struct test *t)
{
    int r = make_memory(t);
    if (r == 0)
        r = load_kernels(t);
    if (r == 0)
        r = locate(t);
    if (r == 0)
        r = run_grids(t);
    if (r == 0 && t->gpu->cc_major >= CHAIN_CC_MAJOR)
        r = run_all_behind(t);
    return r == 0 ? measure_exits(t) : r;
}

int lithos_probe_atoms(struct lithos_probe_gpu *gpu)
{
    struct test t = {.gpu = gpu};
    gpu->atoms = false;
    gpu->exit_ps = 0;
    gpu->atoms_why[0] = 0;
    int r = lithos_prelude_find(gpu->cc_major, gpu->cc_minor, lithos_probe_seen.allow_unproved, &t.row);
    gpu->have_atoms = true;
    if (r < 0) {
        lithos_probe_fail(gpu->atoms_why, 0, "there is no prelude for compute capability %d.%d%s",
                          gpu->cc_major, gpu->cc_minor,
                          r == -EPERM ? " that was proved on a card (LITHOS_UNTESTED_GPU=1 tries one)" : "");
        return 0;
    }
    if (find_functions(&t) < 0)
        return 0;
    r = lithos_probe_bench_init(&t.b, gpu);
    if (r < 0) {
        gpu->have_atoms = false;
        return r;
    }
    gpu->atoms = run_tests(&t) == 0;
    finish(&t);
    return 0;
}
