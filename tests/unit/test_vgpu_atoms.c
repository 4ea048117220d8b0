/* Atoms on the virtual driver: what its linker makes, how a patched prelude is followed, each block once, and what a card would not
 * put up with. The QMD is edited by the hook, as liblithos does it. Each test is a process of its own. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "hw/prelude.h"
#include "hw/qmd_atom.h"
#include "unit/stub/vgpu_server.h"

#define LIBRARY LITHOS_BINARY_DIR "/lib/lithos/vgpu/libcuda.so.1"
#define ILLEGAL_INSTRUCTION 715
#define BLOCKS 40u

#define CHECK(expr)                                                    \
    do {                                                               \
        if (!(expr)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #expr); \
            _exit(1);                                                  \
        }                                                              \
    } while (0)
#define IS(call, want)                                                           \
    do {                                                                         \
        int r_ = (call);                                                         \
        if (r_ != (want)) {                                                      \
            fprintf(stderr, "%s:%d: %s is %d\n", __FILE__, __LINE__, #call, r_); \
            _exit(1);                                                            \
        }                                                                        \
    } while (0)
#define OK(call) IS(call, 0)

#define FUNCTIONS(X)                                                                                    \
    X(cuInit, unsigned)                                                                                 \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                       \
    X(cuCtxSetCurrent, CUcontext)                                                                       \
    X(cuCtxSynchronize, void)                                                                           \
    X(cuLinkCreate_v2, unsigned, int *, void **, CUlinkState *)                                         \
    X(cuLinkAddData_v2, CUlinkState, int, void *, size_t, const char *, unsigned, int *, void **)       \
    X(cuLinkComplete, CUlinkState, void **, size_t *)                                                   \
    X(cuLinkDestroy, CUlinkState)                                                                       \
    X(cuModuleLoadData, CUmodule *, const void *)                                                       \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                        \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
      CUstream, void **, void **)                                                                       \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                             \
    X(cuMemFree_v2, CUdeviceptr)                                                                        \
    X(cuMemHostAlloc, void **, size_t, unsigned)                                                        \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                     \
    X(cuMemsetD32_v2, CUdeviceptr, unsigned, size_t)                                                    \
    X(cuGetExportTable, const void **, const CUuuid *)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;

/* ---- the hook */

static struct {
    bool on, no_bank, prelude_alone;
    struct lithos_qmd_atom atom;
    uint64_t entry; /* seen */
} ask;

static void on_qmd(void *user, int domain, int id, const void *params)
{
    (void)user;
    (void)domain;
    (void)id;
    void *qmd = (void *)(uintptr_t)((const uint64_t *)params)[LITHOS_QMD_PARAMS_QMD];
    const struct lithos_qmd_layout *layout = lithos_qmd_layout(LITHOS_QMD_V04_00);
    ask.entry = lithos_qmd_entry(layout, qmd);
    if (!ask.on)
        return;
    if (ask.prelude_alone)
        ask.atom.code = ask.entry;
    CHECK(lithos_qmd_set_atom(layout, qmd, &ask.atom) == 0);
    if (ask.no_bank)
        CHECK(lithos_qmd_set(layout, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, LITHOS_PRELUDE_BANK, 0) == 0);
}

/* out[linear block] += 1 */
static const char ptx[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry mark(.param .u64 p_out)\n{\n"
    ".reg .b32 %r<9>;\n.reg .b64 %rd<5>;\n"
    "ld.param.u64 %rd1, [p_out];\n"
    "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %nctaid.x;\n"
    "mad.lo.u32 %r4, %r2, %r3, %r1; mul.wide.u32 %rd2, %r4, 4; add.s64 %rd3, %rd1, %rd2;\n"
    "mov.u32 %r5, 1; atom.global.add.u32 %r6, [%rd3], %r5;\nret;\n}\n"
    ".visible .entry other(.param .u64 p_out)\n{\nret;\n}\n";

/* Room for the prelude: instructions enough. */
static char room_ptx[8192];

static CUfunction mark, other;
static CUdeviceptr out;
static struct lithos_prelude_entry *entries;
static uint64_t code, mark_entry, other_entry;

static int run(CUfunction f, unsigned gx, unsigned gy)
{
    void *params[] = {&out};
    return cuLaunchKernel(f, gx, gy, 1, 1, 1, 1, 0, NULL, params, NULL);
}

static CUmodule load_prelude(void)
{
    const struct lithos_prelude_row *row;
    CUlinkState state;
    CUmodule m;
    void *image;
    size_t bytes;
    char *at = room_ptx + sprintf(room_ptx,
                                  "%s.visible .entry " LITHOS_PRELUDE_KERNEL
                                  "(.param .u64 p)\n{\n.reg .b32 %%r<2>;\n",
                                  ".version 7.0\n.target sm_52\n.address_size 64\n");
    for (int i = 0; i < 80; i++)
        at += sprintf(at, "mov.u32 %%r1, %d;\n", i);
    sprintf(at, "ret;\n}\n");
    CHECK(lithos_prelude_find(9, 0, false, &row) == 0);
    OK(cuLinkCreate_v2(0, NULL, NULL, &state));
    IS(cuLinkComplete(state, &image, &bytes), CUDA_ERROR_INVALID_VALUE); /* nothing to link */
    IS(cuLinkAddData_v2(state, 0, room_ptx, strlen(room_ptx), "a cubin", 0, NULL, NULL),
       CUDA_ERROR_NOT_SUPPORTED);
    IS(cuLinkAddData_v2(state, CU_JIT_INPUT_PTX, "rubbish", 7, "", 0, NULL, NULL), CUDA_ERROR_INVALID_IMAGE);
    OK(cuLinkAddData_v2(state, CU_JIT_INPUT_PTX, room_ptx, strlen(room_ptx), "", 0, NULL, NULL));
    OK(cuLinkComplete(state, &image, &bytes));
    CHECK(lithos_prelude_patch(row, image, bytes) == 0);
    OK(cuModuleLoadData(&m, image));
    OK(cuLinkDestroy(state));
    IS(cuLinkDestroy(state), CUDA_ERROR_INVALID_HANDLE);
    return m;
}

static void start(void)
{
    static const CUuuid id = LITHOS_QMD_TABLE_UUID;
    const void *const *table;
    uint32_t handle;
    CUcontext ctx;
    CUmodule m;
    CUfunction prelude;
    fake_server_start(&server);
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    OK(cuGetExportTable((const void **)&table, &id));
    OK(((lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE])(&handle, on_qmd, NULL));
    OK(((lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE])(1, handle, LITHOS_QMD_DOMAIN,
                                                              LITHOS_QMD_CALLBACK_ID));
    OK(cuModuleLoadData(&m, ptx));
    OK(cuModuleGetFunction(&mark, m, "mark"));
    OK(cuModuleGetFunction(&other, m, "other"));
    OK(cuModuleGetFunction(&prelude, load_prelude(), LITHOS_PRELUDE_KERNEL));
    OK(cuMemAlloc_v2(&out, BLOCKS * sizeof(uint32_t)));
    OK(cuMemHostAlloc((void **)&entries, 8 * sizeof *entries, 0));
    OK(run(other, 1, 1));
    other_entry = ask.entry;
    OK(run(mark, 1, 1));
    mark_entry = ask.entry;
    /* The prelude by itself: with an entry that nothing survives it may be launched. */
    entries[0] = (struct lithos_prelude_entry){.lo = LITHOS_PRELUDE_NOTHING};
    ask.on = ask.prelude_alone = true;
    ask.atom = (struct lithos_qmd_atom){.hi = 1, .entry = (uintptr_t)&entries[0]};
    OK(run(prelude, 1, 1));
    code = ask.entry;
    ask.on = ask.prelude_alone = false;
    OK(cuMemsetD32_v2(out, 0, BLOCKS));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 0 && code && code != mark_entry);
}

/* Part [lo, hi) of a grid along x or y, as entry n. */
static int part(unsigned n, unsigned dim, uint32_t lo, uint32_t hi, unsigned gx, unsigned gy)
{
    entries[n] = (struct lithos_prelude_entry){.lo = lo, .target = mark_entry};
    ask.on = true;
    ask.atom = (struct lithos_qmd_atom){.dim = dim,
                                        .hi = hi,
                                        .code = lo ? code + dim * LITHOS_PRELUDE_STRIDE : 0,
                                        .entry = (uintptr_t)&entries[n]};
    int r = run(mark, gx, gy);
    ask.on = false;
    return r;
}

/* Blocks [lo, hi) of the line of a grid, as entry n. */
static int line_part(unsigned n, uint32_t lo, uint32_t hi, unsigned gx, unsigned gy)
{
    entries[n] = (struct lithos_prelude_entry){
        .lo = lo, .span = hi - lo, .target = mark_entry, .width = gx, .height = gy};
    ask.on = true;
    ask.atom = (struct lithos_qmd_atom){.dim = 1,
                                        .hi = (hi + gx - 1) / gx,
                                        .code = code + LITHOS_PRELUDE_LINE * LITHOS_PRELUDE_STRIDE,
                                        .entry = (uintptr_t)&entries[n]};
    int r = run(mark, gx, gy);
    ask.on = false;
    return r;
}

static void expect(uint32_t from, uint32_t to, uint32_t times)
{
    uint32_t got[BLOCKS];
    OK(cuMemcpyDtoH_v2(got, out, sizeof got));
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (got[i] != (i >= from && i < to ? times : 0)) {
            fprintf(stderr, "block %u ran %u times\n", i, got[i]);
            _exit(1);
        }
    OK(cuMemsetD32_v2(out, 0, BLOCKS));
}

/* ---- tests */

static void once_body(void)
{
    start();
    OK(part(1, 0, 0, 13, BLOCKS, 1));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 0 && server.last.flags & VGPU_LAUNCH_ATOM);
    expect(0, 13, 1);
    OK(part(2, 0, 13, 14, BLOCKS, 1));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 13);
    expect(13, 14, 1);
    OK(part(3, 0, 14, BLOCKS, BLOCKS, 1));
    OK(cuCtxSynchronize());
    CHECK(server.last.cut_missed == 0 && server.last.cut_twice == 0);
    expect(14, BLOCKS, 1);
    /* along y, of a grid 5 wide: 5 blocks a unit */
    OK(part(4, 1, 0, 3, 5, 8));
    OK(part(5, 1, 3, 8, 5, 8));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 15 && server.last.cut_missed == 0 && server.last.cut_twice == 0);
    expect(0, BLOCKS, 1);
    /* and whole ones are no atoms */
    OK(run(mark, BLOCKS, 1));
    OK(cuCtxSynchronize());
    CHECK(!(server.last.flags & VGPU_LAUNCH_ATOM));
    expect(0, BLOCKS, 1);
}

/* Atoms that begin and end within a row. */
static void line_body(void)
{
    start();
    OK(line_part(1, 0, 7, 5, 8)); /* two rows are launched, of which three blocks end */
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 3 && server.last.flags & VGPU_LAUNCH_ATOM);
    expect(0, 7, 1);
    OK(line_part(2, 7, 8, 5, 8));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 9);
    expect(7, 8, 1);
    OK(line_part(3, 8, 20, 5, 8));
    OK(line_part(4, 20, 40, 5, 8));
    OK(cuCtxSynchronize());
    CHECK(server.last.exits == 20 && server.last.cut_missed == 0 && server.last.cut_twice == 0);
    expect(8, BLOCKS, 1);
    /* with one in slices between them, which ends where a row does */
    OK(part(1, 1, 0, 3, 5, 8));
    OK(line_part(2, 15, 33, 5, 8));
    OK(line_part(3, 34, 40, 5, 8)); /* 33 is not there */
    OK(cuCtxSynchronize());
    CHECK(server.last.cut_missed == 1 && server.last.cut_twice == 0);
}

static void other_grid_body(void)
{
    start();
    entries[1] =
        (struct lithos_prelude_entry){.lo = 7, .span = 9, .target = mark_entry, .width = 8, .height = 5};
    ask.on = true;
    ask.atom = (struct lithos_qmd_atom){.dim = 1,
                                        .hi = 4,
                                        .code = code + LITHOS_PRELUDE_LINE * LITHOS_PRELUDE_STRIDE,
                                        .entry = (uintptr_t)&entries[1]};
    IS(run(mark, 5, 8), CUDA_ERROR_LAUNCH_FAILED);
}

/* Blocks left out, or run twice, are told of. */
static void account_body(void)
{
    start();
    OK(part(1, 0, 0, 13, BLOCKS, 1));
    OK(part(2, 0, 15, BLOCKS, BLOCKS, 1)); /* 13 and 14 are not there */
    OK(cuCtxSynchronize());
    CHECK(server.last.cut_missed == 2 && server.last.cut_twice == 0);
    OK(part(1, 0, 0, 13, BLOCKS, 1));
    OK(part(3, 0, 12, BLOCKS, BLOCKS, 1)); /* 12 is there twice */
    OK(cuCtxSynchronize());
    CHECK(server.last.cut_missed == 0 && server.last.cut_twice == 1);
    OK(part(1, 1, 0, 3, 5, 8));
    OK(run(mark, BLOCKS, 1)); /* another kernel: the last 5 rows never came */
    OK(cuCtxSynchronize());
    CHECK(server.last.cut_missed == 25);
}

static void no_code_body(void)
{
    start();
    entries[1] = (struct lithos_prelude_entry){.lo = 4, .target = mark_entry};
    ask.on = true;
    ask.atom = (struct lithos_qmd_atom){.hi = BLOCKS, .code = other_entry, .entry = (uintptr_t)&entries[1]};
    IS(run(mark, BLOCKS, 1), ILLEGAL_INSTRUCTION);
}

static void middle_of_code_body(void)
{
    start();
    code += 16; /* past the first instruction */
    IS(part(1, 0, 4, BLOCKS, BLOCKS, 1), ILLEGAL_INSTRUCTION);
}

static void wrong_target_body(void)
{
    start();
    mark_entry = other_entry;
    IS(part(1, 0, 4, BLOCKS, BLOCKS, 1), ILLEGAL_INSTRUCTION);
}

static void no_bank_body(void)
{
    start();
    ask.no_bank = true;
    IS(part(1, 0, 4, BLOCKS, BLOCKS, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void unmapped_entry_body(void)
{
    start();
    entries[1] = (struct lithos_prelude_entry){.lo = 4, .target = mark_entry};
    ask.on = true;
    ask.atom = (struct lithos_qmd_atom){.hi = BLOCKS, .code = code, .entry = 0x123400};
    IS(run(mark, BLOCKS, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
}

/* Not a part of the grid: more blocks than it has. */
static void too_many_body(void)
{
    start();
    IS(part(1, 0, 4, BLOCKS + 1, BLOCKS, 1), CUDA_ERROR_LAUNCH_FAILED);
}

/* Written over while its launch is on the way: a card may read either. */
static void changed_entry_body(void)
{
    start();
    server.hold = 1;
    OK(part(1, 0, 4, BLOCKS, BLOCKS, 1));
    entries[1].lo = 5;
    server.hold = 0;
    IS(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
}

static void run_child(void (*body)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define TEST(name)                 \
    static void name(void **state) \
    {                              \
        (void)state;               \
        run_child(name##_body);    \
    }
TEST(once)
TEST(line)
TEST(other_grid)
TEST(account)
TEST(no_code)
TEST(middle_of_code)
TEST(wrong_target)
TEST(no_bank)
TEST(unmapped_entry)
TEST(too_many)
TEST(changed_entry)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once),         cmocka_unit_test(line),          cmocka_unit_test(other_grid),
        cmocka_unit_test(account),      cmocka_unit_test(no_code),       cmocka_unit_test(middle_of_code),
        cmocka_unit_test(wrong_target), cmocka_unit_test(no_bank),       cmocka_unit_test(unmapped_entry),
        cmocka_unit_test(too_many),     cmocka_unit_test(changed_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
