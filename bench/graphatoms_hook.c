/* The callback, and what it needs. */
#include "bench/graphatoms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver/atom_test.h"
#include "driver/qmd_table.h"
#include "hw/qmd_atom.h"

struct graph_cuda g;
struct graph_bench t;
struct graph_hook hook;
static struct lithos_prelude_cuda prelude_cuda;

static void make_atom(const struct lithos_qmd_layout *layout, void *qmd)
{
    unsigned i = hook.next % hook.cut.count;
    hook.next += !hook.one;
    hook.made++;
    if (hook.empty) {
        if (i)
            hook.error |= lithos_qmd_set_side(layout, qmd, 0, 0);
        return;
    }
    struct lithos_part p = lithos_cut_part(&hook.cut, i);
    const struct lithos_qmd_atom atom = {.dim = hook.cut.dim,
                                         .hi = p.side,
                                         .code = p.has_exits ? hook.code : 0,
                                         .entry = t.pool + i * sizeof *t.entries,
                                         .pre_exit = hook.pre_exit && i + 1 < hook.cut.count};
    int r = lithos_qmd_set_atom(layout, qmd, &atom);
    if (r < 0)
        hook.error = r;
}

static void on_qmd(void *user, int domain, int id, const void *params)
{
    (void)user;
    const struct lithos_qmd_layout *layout;
    uint64_t words[WORDS];
    if (domain != LITHOS_QMD_DOMAIN || id != LITHOS_QMD_CALLBACK_ID)
        return;
    memcpy(words, params, sizeof words);
    void *qmd = (void *)(uintptr_t)words[LITHOS_QMD_PARAMS_QMD]; /* NOLINT(performance-no-int-to-ptr) */
    if (lithos_qmd_identify(t.cc[0], t.cc[1], qmd, true, &layout) < 0)
        return;
    struct lithos_qmd_view v;
    lithos_qmd_decode(layout, qmd, &v);
    if (hook.locate) {
        const struct lithos_qmd_atom nothing = {.hi = 1, .code = v.entry, .entry = t.pool};
        hook.code = v.entry;
        hook.error = lithos_qmd_set_atom(layout, qmd, &nothing);
        return;
    }
    if (hook.logged < LOG) {
        struct seen *s = &hook.log[hook.logged++];
        *s =
            (struct seen){.function = words[LITHOS_QMD_PARAMS_FUNCTION], .count = words[5], .entry = v.entry};
        memcpy(s->words, words, sizeof s->words);
        memcpy(s->grid, v.grid, sizeof s->grid);
        s->prelude = v.entry >= hook.code && v.entry < hook.code + LITHOS_PRELUDE_BYTES;
        s->latch = lithos_qmd_waits_on_latch(layout, qmd);
        s->pre_exit = lithos_qmd_get_pre_exit(layout, qmd);
        s->bank = lithos_qmd_bank_used(layout, qmd, LITHOS_PRELUDE_BANK);
    }
    if (hook.edit && words[LITHOS_QMD_PARAMS_FUNCTION] == hook.function && v.grid[0])
        make_atom(layout, qmd);
}

bool ok(const char *trial, const char *call, CUresult r)
{
    if (r != CUDA_SUCCESS)
        printf("{\"trial\": \"%s\", \"failed\": \"%s\", \"error\": %d}\n", trial, call, r);
    return r == CUDA_SUCCESS;
}

void begin_atoms(CUfunction f, unsigned blocks, unsigned count, bool pre_exit)
{
    /* lithos_fma: one turn; the one that marks: no block waits */
    uint32_t one = 1, no_ns = 0;
    void *params[] = {&t.out, &one, &no_ns};
    hook.edit = false;
    hook.logged = 0;
    CU(cuLaunchKernel, f, 1, 1, 1, 32, 1, 1, 0, t.ctx.stream, params, NULL);
    CU(cuStreamSynchronize, t.ctx.stream);
    hook.function = hook.log[0].function;
    hook.target = hook.log[0].entry;
    hook.cut = lithos_cut_make((const uint32_t[]){blocks, 1, 1}, false, count);
    for (unsigned i = 0; i < count; i++)
        t.entries[i] =
            (struct lithos_prelude_entry){.lo = lithos_cut_part(&hook.cut, i).lo, .target = hook.target};
    CU(cuMemcpyHtoD, t.pool, t.entries, count * sizeof *t.entries);
    hook.next = hook.logged = 0;
    hook.error = 0;
    hook.pre_exit = pre_exit;
    hook.edit = true;
}

void end_atoms(void)
{
    hook.edit = false;
}

void open_all(const struct sample_options *o)
{
    char why[512] = "";
    CUfunction kernel;
    const struct lithos_prelude_row *row;
    sample_open(o, &t.ctx);
#define X(name, symbol, args) sample_find(symbol, symbol, &g.name, sizeof g.name);
    GRAPH_CUDA(X)
#undef X
    ok("open", "cuCtxGetCurrent", g.cuCtxGetCurrent(&t.context));
#define X(member, name, args) sample_find(#name, #name, &prelude_cuda.member, sizeof prelude_cuda.member);
    LITHOS_PRELUDE_CUDA(X)
#undef X
    CU(cuDeviceGetAttribute, &t.cc[0], CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, t.ctx.device);
    CU(cuDeviceGetAttribute, &t.cc[1], CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, t.ctx.device);
    CU(cuModuleLoadData, &t.module, LITHOS_ATOM_TEST_PTX);
    CU(cuModuleGetFunction, &t.mark, t.module, LITHOS_ATOM_MARK);
    CU(cuModuleGetFunction, &t.sum, t.module, LITHOS_ATOM_SUM);
    t.null = sample_function(&t.ctx, "lithos_null");
    t.fma = sample_function(&t.ctx, "lithos_fma");
    CU(cuMemAlloc, &t.out, BLOCKS * sizeof(uint32_t));
    CU(cuMemAlloc, &t.out2, BLOCKS * sizeof(uint32_t));
    CU(cuMemAlloc, &t.ret, 64);
    CU(cuMemAlloc, &t.pool, LITHOS_MAX(ATOMS_MAX * sizeof *t.entries, (size_t)LITHOS_PRELUDE_SCRATCH_BYTES));
    t.entries = calloc(ATOMS_MAX, sizeof *t.entries);
    CU(cuEventCreate, &t.begin, CU_EVENT_DEFAULT);
    CU(cuEventCreate, &t.end, CU_EVENT_DEFAULT);
    int r =
        t.entries ? lithos_qmd_table_subscribe(g.cuGetExportTable, on_qmd, NULL, why, sizeof why) : -ENOMEM;
    if (r == 0)
        r = lithos_prelude_find(t.cc[0], t.cc[1], true, &row);
    if (r == 0)
        r = lithos_prelude_load(&prelude_cuda, row, &t.prelude, &kernel, why, sizeof why);
    if (r < 0) {
        fprintf(stderr, "lithos-graphatoms: %s (%s)\n", why, strerror(-r));
        exit(1);
    }
    t.entries[0] = (struct lithos_prelude_entry){.lo = LITHOS_PRELUDE_NOTHING};
    CU(cuMemcpyHtoD, t.pool, t.entries, sizeof *t.entries);
    void *params[] = {&t.pool};
    hook.locate = true;
    CU(cuLaunchKernel, kernel, 1, 1, 1, 1, 1, 1, 0, t.ctx.stream, params, NULL);
    hook.locate = false;
    CU(cuStreamSynchronize, t.ctx.stream);
}
