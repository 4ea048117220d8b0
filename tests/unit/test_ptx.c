/* The PTX subset: results of each kind of instruction, refusals, barriers, bounds, and ptxas's opinion of our texts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "vgpu/client/ptx.h"

#define DEVICE 0x0000a00000000000ull
#define WORDS 4096
#define HEAD ".version 7.0\n.target sm_52\n.address_size 64\n"
#define OPEN                                                                                              \
    HEAD ".visible .entry k(.param .u64 p_out, .param .u64 p_in, .param .u32 p_n)\n{\n"                   \
         ".reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .b64 %rd<32>; .reg .f32 %f<8>; .reg " \
         ".f64 %d<8>;\n"                                                                                  \
         "ld.param.u64 %rd1, [p_out]; ld.param.u64 %rd2, [p_in]; ld.param.u32 %r1, [p_n];\n"              \
         "cvta.to.global.u64 %rd1, %rd1; cvta.to.global.u64 %rd2, %rd2;\n"
#define CLOSE "ret;\n}\n"

static _Alignas(16) uint8_t memory[2 * WORDS * 8];

struct params {
    uint64_t out, in;
    uint32_t n;
};

static struct ptx_program *parse(const char *text)
{
    char message[256];
    struct ptx_program *p = NULL;
    int r = ptx_parse(text, strlen(text), &p, message, sizeof message);
    if (r)
        fail_msg("%s", message);
    return p;
}

static int run_with(const char *text, struct ptx_launch *l, uint32_t blocks, uint32_t n)
{
    struct ptx_program *p = parse(text);
    struct {
        struct ptx_memory m;
        struct ptx_range r[1];
    } map = {{.count = 1}, {{DEVICE, sizeof memory, memory}}};
    struct params params = {DEVICE, DEVICE + WORDS * 8, n};
    uint64_t globals[4] = {DEVICE + 512};
    l->params = (const uint8_t *)&params;
    l->memory = &map.m;
    l->globals = globals;
    l->grid[0] = blocks;
    l->grid[1] = l->grid[2] = 1;
    l->start_ns = 1000000;
    l->nsmid = 132;
    if (!l->budget)
        l->budget = 10000000;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < blocks; i++)
        r = ptx_run_block(ptx_find(p, "k"), l, (uint32_t[3]){i, 0, 0}, i + 40);
    ptx_free(p);
    return r;
}

/* One thread. */
static void run(const char *text, uint32_t n)
{
    struct ptx_launch l = {.block = {1, 1, 1}};
    int r = run_with(text, &l, 1, n);
    if (r)
        fail_msg("%d: %s", r, l.message);
}

static uint64_t out64(unsigned i)
{
    uint64_t v;
    memcpy(&v, memory + i * 8, 8);
    return v;
}

static uint32_t out32(unsigned i)
{
    uint32_t v;
    memcpy(&v, memory + i * 4, 4);
    return v;
}

static int clear(void **state)
{
    (void)state;
    memset(memory, 0, sizeof memory);
    return 0;
}

static void whole_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *code; /* from %r1 = n and %r2 = 7 to %rd10 */
        uint32_t n;
        uint64_t want;
    } cases[] = {
        {"add.s32 %r3, %r1, %r2; cvt.u64.u32 %rd10, %r3;", 0xffffffff, 6},
        {"sub.u32 %r3, %r2, %r1; cvt.s64.s32 %rd10, %r3;", 9, (uint64_t)-2},
        {"mul.lo.u32 %r3, %r1, %r1; cvt.u64.u32 %rd10, %r3;", 0x10001, 0x20001},
        {"mul.hi.u32 %r3, %r1, %r1; cvt.u64.u32 %rd10, %r3;", 0xffffffff, 0xfffffffe},
        {"mul.hi.s32 %r3, %r1, %r2; cvt.s64.s32 %rd10, %r3;", 0xffffffff, (uint64_t)-1},
        {"mul.wide.u32 %rd10, %r1, %r2;", 0xffffffff, 0x6fffffff9ull},
        {"mul.wide.s32 %rd10, %r1, %r2;", 0xffffffff, (uint64_t)-7},
        {"mov.u64 %rd3, 100; mad.wide.s32 %rd10, %r1, -4, %rd3;", 3, 88},
        {"mad.lo.s32 %r3, %r1, %r2, %r2; cvt.s64.s32 %rd10, %r3;", 0xfffffffe, (uint64_t)-7},
        {"div.s32 %r3, %r1, %r2; cvt.s64.s32 %rd10, %r3;", (uint32_t)-15, (uint64_t)-2},
        {"rem.s32 %r3, %r1, %r2; cvt.s64.s32 %rd10, %r3;", (uint32_t)-15, (uint64_t)-1},
        {"div.u32 %r3, %r1, %r2; cvt.u64.u32 %rd10, %r3;", (uint32_t)-15, (0x100000000ull - 15) / 7},
        {"mov.u32 %r4, 0; div.u32 %r3, %r1, %r4; cvt.u64.u32 %rd10, %r3;", 5, 0xffffffff},
        {"mov.u32 %r4, -1; div.s32 %r3, %r1, %r4; cvt.u64.u32 %rd10, %r3;", 0x80000000, 0x80000000},
        {"min.s32 %r3, %r1, %r2; cvt.s64.s32 %rd10, %r3;", (uint32_t)-1, (uint64_t)-1},
        {"min.u32 %r3, %r1, %r2; cvt.u64.u32 %rd10, %r3;", (uint32_t)-1, 7},
        {"max.s32 %r3, %r1, %r2; cvt.u64.u32 %rd10, %r3;", (uint32_t)-1, 7},
        {"and.b32 %r3, %r1, 0x0f; or.b32 %r3, %r3, 0x30; xor.b32 %r3, %r3, %r2; cvt.u64.u32 %rd10, %r3;",
         0xff, 0x38},
        {"not.b32 %r3, %r1; cvt.u64.u32 %rd10, %r3;", 0xff, 0xffffff00},
        {"shl.b32 %r3, %r1, 31; cvt.u64.u32 %rd10, %r3;", 3, 0x80000000},
        {"shl.b32 %r3, %r1, 32; cvt.u64.u32 %rd10, %r3;", 3, 0},
        {"shr.u32 %r3, %r1, 4; cvt.u64.u32 %rd10, %r3;", 0x80000000, 0x08000000},
        {"shr.s32 %r3, %r1, 40; cvt.s64.s32 %rd10, %r3;", 0x80000000, (uint64_t)-1},
        {"neg.s32 %r3, %r1; abs.s32 %r4, %r3; sub.s32 %r3, %r4, %r3; cvt.u64.u32 %rd10, %r3;", 5, 10},
        {"cvt.s8.s32 %r3, %r1; cvt.s64.s8 %rd10, %r3;", 0x1ff, (uint64_t)-1},
        {"cvt.u16.u32 %h1, %r1; cvt.u64.u16 %rd10, %h1;", 0x12345, 0x2345},
        {"popc.b32 %r3, %r1; clz.b32 %r4, %r1; mad.lo.u32 %r3, %r3, 100, %r4; cvt.u64.u32 %rd10, %r3;",
         0x00f0, 424},
        {"setp.lt.s32 %p1, %r1, %r2; selp.u64 %rd10, 1, 2, %p1;", (uint32_t)-1, 1},
        {"setp.lt.u32 %p1, %r1, %r2; selp.u64 %rd10, 1, 2, %p1;", (uint32_t)-1, 2},
        {"setp.ge.u32 %p1, %r1, 5; setp.le.u32 %p2, %r1, 5; and.pred %p3, %p1, %p2; selp.u64 %rd10, 1, 2, "
         "%p3;",
         5, 1},
        {"setp.eq.u32 %p1, %r1, 5; not.pred %p2, %p1; mov.u64 %rd10, 9; @%p2 mov.u64 %rd10, 3; "
         "@!%p2 add.u64 %rd10, %rd10, 1;",
         5, 10},
        {"{ .reg .u32 %r1; mov.u32 %r1, 3; } cvt.u64.u32 %rd10, %r1;", 8, 8},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        char text[2048];
        snprintf(text, sizeof text, "%s%s\n%s\n%s", OPEN "mov.u32 %r2, 7;\n", cases[i].code,
                 "st.global.u64 [%rd1], %rd10;", CLOSE);
        run(text, cases[i].n);
        if (out64(0) != cases[i].want)
            fail_msg("%s: %#llx, not %#llx", cases[i].code, (unsigned long long)out64(0),
                     (unsigned long long)cases[i].want);
    }
}

static void floats(void **state)
{
    (void)state;
    static const struct {
        const char *code; /* from %f1 = 2.5, %f2 = -0.75 to %f3 */
        float want;
    } cases[] = {
        {"add.f32 %f3, %f1, %f2;", 1.75f},
        {"sub.rn.ftz.f32 %f3, %f1, %f2;", 3.25f},
        {"mul.f32 %f3, %f1, %f2;", -1.875f},
        {"fma.rn.f32 %f3, %f1, %f2, %f2;", -2.625f},
        {"div.rn.f32 %f3, %f1, %f2;", 2.5f / -0.75f},
        {"min.f32 %f3, %f1, %f2;", -0.75f},
        {"abs.f32 %f3, %f2;", 0.75f},
        {"neg.f32 %f3, %f1;", -2.5f},
        {"sqrt.approx.f32 %f3, 0f41100000;", 3.0f},
        {"add.sat.f32 %f3, %f1, %f1;", 1.0f},
        {"mov.f32 %f3, 0f3FC00000;", 1.5f},
        {"mov.f32 %f3, -1.5;", -1.5f},
        {"cvt.rni.f32.f32 %f3, %f1;", 2.0f},
        {"cvt.rpi.f32.f32 %f3, %f1;", 3.0f},
        {"cvt.rzi.s32.f32 %r3, %f2; cvt.rn.f32.s32 %f3, %r3;", 0.0f},
        {"cvt.rmi.s32.f32 %r3, %f2; cvt.rn.f32.s32 %f3, %r3;", -1.0f},
        {"cvt.f64.f32 %d1, %f1; mul.f64 %d2, %d1, 0d4000000000000000; cvt.rn.f32.f64 %f3, %d2;", 5.0f},
        {"mov.f32 %f4, 0f7FC00000; setp.ltu.f32 %p1, %f4, %f1; setp.lt.f32 %p2, %f4, %f1; selp.f32 %f3, 1.0, "
         "2.0, %p1;"
         "@%p2 mov.f32 %f3, 9.0;",
         1.0f},
        {"mov.f32 %f4, 0f7F800000; cvt.rzi.s32.f32 %r3, %f4; setp.eq.s32 %p1, %r3, 0x7fffffff;"
         "selp.f32 %f3, 4.0, 5.0, %p1;",
         4.0f},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        char text[2048];
        snprintf(text, sizeof text, "%s%s\n%s\n%s", OPEN "mov.f32 %f1, 2.5; mov.f32 %f2, 0fBF400000;\n",
                 cases[i].code, "st.global.f32 [%rd1], %f3;", CLOSE);
        run(text, 0);
        float got;
        memcpy(&got, memory, 4);
        if (got != cases[i].want)
            fail_msg("%s: %g, not %g", cases[i].code, (double)got, (double)cases[i].want);
    }
}

/* out[i] = in[i] * 2 + i, by a grid of blocks, the last one half empty */
static void a_grid_with_a_loop_and_memory(void **state)
{
    (void)state;
    const char *text =
        OPEN "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;\n"
             "mad.lo.u32 %r5, %r2, %r3, %r4;\n"
             "LOOP: setp.ge.u32 %p1, %r5, %r1;\n@%p1 bra DONE;\n"
             "mul.wide.u32 %rd3, %r5, 4; add.u64 %rd4, %rd2, %rd3; add.u64 %rd5, %rd1, %rd3;\n"
             "ld.global.nc.u32 %r6, [%rd4+0]; shl.b32 %r6, %r6, 1; add.u32 %r6, %r6, %r5;\n"
             "st.global.u32 [%rd5], %r6;\n"
             "mov.u32 %r7, %nctaid.x; mad.lo.u32 %r5, %r7, %r3, %r5; bra.uni LOOP;\nDONE:\n" CLOSE;
    for (uint32_t i = 0; i < 1000; i++)
        memcpy(memory + WORDS * 8 + i * 4, &(uint32_t){i * 3}, 4);
    struct ptx_launch l = {.block = {64, 1, 1}};
    assert_int_equal(run_with(text, &l, 3, 1000), 0);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(out32(i), i * 7);
    assert_int_equal(out32(1000), 0);
}

static void special_registers(void **state)
{
    (void)state;
    const char *text =
        OPEN "mov.u32 %r2, %tid.y; mov.u32 %r3, %smid; mov.u32 %r4, %laneid; mov.u32 %r5, %warpid;\n"
             "mov.u64 %rd3, %globaltimer; mov.u32 %r6, %nsmid; mov.u32 %r7, %ntid.y;\n"
             "setp.ne.u32 %p1, %r2, 9; @%p1 exit;\n"
             "st.global.v4.u32 [%rd1], {%r2, %r3, %r4, %r5};\nst.global.u64 [%rd1+16], %rd3;\n"
             "st.global.v2.u32 [%rd1+24], {%r6, %r7};\n" CLOSE;
    struct ptx_launch l = {.block = {8, 10, 1}};
    assert_int_equal(run_with(text, &l, 1, 0), 0);
    assert_int_equal(out32(0), 9);
    assert_int_equal(out32(1), 40);
    assert_int_equal(out32(2), 79 % 32);
    assert_int_equal(out32(3), 2);
    assert_true(out64(2) > 1000000 && out64(2) < 1000000 + 100000);
    assert_int_equal(out32(6), 132);
    assert_int_equal(out32(7), 10);
}

/* A block reverses 256 numbers through shared memory, static and dynamic: wrong without the barrier. */
static void barriers_and_shared_memory(void **state)
{
    (void)state;
    const char *text = HEAD
        ".extern .shared .align 8 .b8 more[];\n"
        ".visible .entry k(.param .u64 p_out, .param .u64 p_in, .param .u32 p_n)\n{\n"
        ".reg .b32 %r<9>; .reg .b64 %rd<9>; .shared .align 4 .u32 first[256];\n"
        "ld.param.u64 %rd1, [p_out]; mov.u32 %r1, %tid.x;\n"
        "mov.u32 %r2, first; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;\n"
        "bar.sync 0;\n"
        "mov.u32 %r5, 255; sub.u32 %r5, %r5, %r1; shl.b32 %r6, %r5, 2; add.u32 %r6, %r6, %r2;\n"
        "ld.shared.u32 %r7, [%r6];\n"
        "cvt.u64.u32 %rd2, %r3; mov.u64 %rd3, more; cvta.shared.u64 %rd3, %rd3; add.u64 %rd4, %rd3, %rd2;\n"
        "st.u32 [%rd4], %r7;\nbarrier.sync 0;\n"
        "cvt.u64.u32 %rd5, %r3; add.u64 %rd6, %rd1, %rd5; ld.u32 %r8, [%rd4]; st.global.u32 [%rd6], %r8;\n"
        "red.global.add.u32 [%rd1+2048], 2;\natom.global.add.u32 %r8, [%rd1+2052], %r1;\n" CLOSE;
    struct ptx_launch l = {.block = {256, 1, 1}, .shared_dynamic = 1024};
    assert_int_equal(run_with(text, &l, 1, 0), 0);
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(out32(i), 255 - i);
    assert_int_equal(out32(512), 512);
    assert_int_equal(out32(513), 255 * 128);
    l.shared_dynamic = 512; /* now half of the threads reach past the end */
    assert_int_equal(run_with(text, &l, 1, 0), -EFAULT);
    assert_non_null(strstr(l.message, "illegal address"));
}

/* One thread waits for another of its block. */
static void threads_take_turns(void **state)
{
    (void)state;
    const char *text =
        OPEN "mov.u32 %r2, %tid.x; setp.ne.u32 %p1, %r2, 0; @%p1 bra SET;\n"
             "SPIN: ld.volatile.global.u32 %r3, [%rd1]; setp.eq.u32 %p2, %r3, 0; @%p2 bra SPIN;\n"
             "st.global.u32 [%rd1+4], 77;\nret;\nSET: st.global.u32 [%rd1], 1;\n" CLOSE;
    struct ptx_launch l = {.block = {2, 1, 1}};
    assert_int_equal(run_with(text, &l, 1, 0), 0);
    assert_int_equal(out32(1), 77);
}

static void what_must_fail_at_run_time(void **state)
{
    (void)state;
    struct ptx_launch l = {.block = {1, 1, 1}, .budget = 100000};
    assert_int_equal(run_with(OPEN "A: bra A;\n" CLOSE, &l, 1, 0), -EOVERFLOW);
    assert_non_null(strstr(l.message, "line"));
    l = (struct ptx_launch){.block = {1, 1, 1}};
    assert_int_equal(run_with(OPEN "st.global.u32 [%rd1+65536], 1;\n" CLOSE, &l, 1, 0), -EFAULT);
    assert_int_equal(run_with(OPEN "st.global.u32 [%rd1-4], 1;\n" CLOSE, &l, 1, 0), -EFAULT);
    assert_int_equal(run_with(OPEN "st.global.u64 [%rd1+65532], %rd1;\n" CLOSE, &l, 1, 0), -EILSEQ);
    assert_int_equal(run_with(OPEN "st.global.u32 [%rd1+2], 1;\n" CLOSE, &l, 1, 0), -EILSEQ);
    assert_int_equal(run_with(OPEN "mov.u64 %rd3, 4096; ld.global.u32 %r3, [%rd3];\n" CLOSE, &l, 1, 0),
                     -EFAULT);
    assert_int_equal(run_with(OPEN "ld.shared.u32 %r3, [0];\n" CLOSE, &l, 1, 0), -EFAULT);
}

static void what_is_not_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int want;
        const char *word, *line;
    } cases[] = {
        {"", -EINVAL, ".version", "line 1"},
        {"\x7f"
         "ELF",
         -EINVAL, ".version", "line 1"},
        {".version 5.0\n.target sm_52\n", -ENOTSUP, "5", "line 1"},
        {OPEN "shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;\n" CLOSE, -ENOTSUP, "shfl", "line 9"},
        {OPEN "add.rz.f32 %f1, %f2, %f3;\n" CLOSE, -ENOTSUP, "rz", "line 9"},
        {OPEN "mov.u32 %r1, %nosuch;\n" CLOSE, -ENOTSUP, "%nosuch", "line 9"},
        {OPEN "mov.u32 %r1, %r32;\n" CLOSE, -ENOTSUP, "%r32", "line 9"},
        {OPEN "add.u32 %r1, %p1, 2;\n" CLOSE, -EINVAL, "predicate", "line 9"},
        {OPEN "add.u32 %r1, %r2;\n" CLOSE, -EINVAL, "','", "line 9"},
        {OPEN "add.u32 %r1, %r2, 1.5;\n" CLOSE, -EINVAL, "whole", "line 9"},
        {OPEN "bra NOWHERE;\n" CLOSE, -EINVAL, "NOWHERE", "line 9"},
        {OPEN "A:\nA:\n" CLOSE, -EINVAL, "twice", "line 10"},
        {OPEN "bar.sync 1;\n" CLOSE, -ENOTSUP, "barrier", "line 9"},
        {OPEN "ld.param.u64 %rd1, [p_n+4];\n" CLOSE, -EINVAL, "parameters", "line 9"},
        {OPEN "setp.lt.and.u32 %p1, %r1, %r2, %p2;\n" CLOSE, -ENOTSUP, "and", "line 9"},
        {OPEN ".local .b8 depot[16];\n" CLOSE, -ENOTSUP, ".local", "line 9"},
        {OPEN, -EINVAL, "does not end", "line 9"},
        {HEAD ".func f()\n{\nret;\n}\n", -ENOTSUP, ".func", "line 4"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        char message[256];
        struct ptx_program *p = NULL;
        int r = ptx_parse(cases[i].text, strlen(cases[i].text), &p, message, sizeof message);
        if (r != cases[i].want || !strstr(message, cases[i].word) || !strstr(message, cases[i].line))
            fail_msg("case %zu: %d \"%s\"", i, r, message);
        assert_null(p);
    }
}

static void what_an_entry_says_of_itself(void **state)
{
    (void)state;
    struct ptx_program *p = parse(
        "// `lithos-vgpu: timing-only` is spoken of here, not said\n" HEAD
        ".global .align 8 .u32 table[4] = {1, -2, 3};\n"
        ".visible .entry a(.param .u8 x, .param .align 16 .b8 y[24], .param .u16 z) .maxntid 128, 2\n{\n"
        ".shared .b8 s[100];\nret;\n// lithos-vgpu: timing-only\n}\n"
        "// lithos-vgpu: timing-only\n.visible .entry b()\n.reqnctapercluster 4, 1, 1\n{\nret;\n}\n"
        ".entry c()\n{\nret;\n}\n");
    const struct ptx_entry *a = ptx_find(p, "a"), *b = ptx_find(p, "b"), *c = ptx_find(p, "c");
    assert_int_equal(p->version, 70);
    assert_int_equal(p->target, 52);
    assert_int_equal(a->param_count, 3);
    assert_int_equal(a->params[1].offset, 16);
    assert_int_equal(a->params[1].size, 24);
    assert_int_equal(a->params[2].offset, 40);
    assert_int_equal(a->param_bytes, 42);
    assert_int_equal(a->shared_bytes, 100);
    assert_int_equal(a->max_threads, 256);
    assert_int_equal(a->registers, 16);
    assert_false(a->timing_only);
    assert_true(b->timing_only);
    assert_int_equal(b->cluster[0], 4);
    assert_false(c->timing_only);
    assert_null(ptx_find(p, "d"));
    assert_int_equal(p->vars[0].size, 16);
    assert_memory_equal(p->vars[0].init, ((uint32_t[]){1, (uint32_t)-2, 3, 0}), 16);
    ptx_free(p);
}

static void registers_follow_what_is_alive(void **state)
{
    (void)state;
    char text[8192], *t = text;
    t += sprintf(t, "%s", HEAD ".entry k(.param .u64 p)\n{\n.reg .b64 %rd<80>;\nld.param.u64 %rd0, [p];\n");
    for (int i = 1; i < 40; i++)
        t += sprintf(t, "ld.global.u64 %%rd%d, [%%rd0+%d];\n", i, i * 8);
    for (int i = 1; i < 40; i++)
        t += sprintf(t, "st.global.u64 [%%rd0+%d], %%rd%d;\n", i * 8, i);
    sprintf(t, "ret;\n}\n");
    struct ptx_program *p = parse(text);
    assert_in_range(ptx_find(p, "k")->registers, 80, 96); /* 40 of 64 bits at once */
    ptx_free(p);
}

/* What we take for PTX is PTX: a real assembler says so, where there is one. */
static void ptxas_agrees(void **state)
{
    (void)state;
    const char *ptxas = "/usr/local/cuda/bin/ptxas";
    if (access(ptxas, X_OK))
        skip();
    char path[] = "/tmp/test_ptx_XXXXXX";
    int fd = mkstemp(path);
    const char *text = OPEN
        "mov.u32 %r2, %smid; cvta.to.global.u64 %rd3, %rd1; mad.wide.u32 %rd4, %r2, 4, %rd3;\n"
        "mad.wide.s32 %rd4, %r2, -4, %rd3; mul.hi.u32 %r3, %r2, %r2; popc.b32 %r4, %r3; clz.b32 %r5, %r4;\n"
        "setp.lt.s32 %p1, %r2, 7; selp.u64 %rd5, 1, 2, %p1; and.pred %p3, %p1, %p1; not.pred %p2, %p3;\n"
        "@!%p2 atom.global.add.u32 %r6, [%rd3], 1; red.global.add.u32 [%rd3+4], %r5; barrier.sync 0;\n"
        "cvt.rzi.s32.f32 %r7, %f1; add.sat.f32 %f3, %f1, %f2; sqrt.approx.f32 %f4, %f3; bar.sync 0;\n"
        "st.global.v4.u32 [%rd3], {%r2, %r3, %r4, %r5}; mov.u64 %rd6, %globaltimer; mov.u64 %rd7, "
        "%clock64;\n" CLOSE;
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    char command[512];
    snprintf(command, sizeof command, "%s -arch=sm_90 -o /dev/null %s 2>&1", ptxas, path);
    int r = system(command);
    unlink(path);
    assert_int_equal(r, 0);
    ptx_free(parse(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(whole_numbers, clear),
        cmocka_unit_test_setup(floats, clear),
        cmocka_unit_test_setup(a_grid_with_a_loop_and_memory, clear),
        cmocka_unit_test_setup(special_registers, clear),
        cmocka_unit_test_setup(barriers_and_shared_memory, clear),
        cmocka_unit_test_setup(threads_take_turns, clear),
        cmocka_unit_test_setup(what_must_fail_at_run_time, clear),
        cmocka_unit_test(what_is_not_understood),
        cmocka_unit_test(what_an_entry_says_of_itself),
        cmocka_unit_test(registers_follow_what_is_alive),
        cmocka_unit_test(ptxas_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
