/* The kernels of the atoms' self-test. Plain PTX of the oldest target the driver still takes. */
#pragma once

/* Each block's first thread adds 1 to out[linear index of the block]; one block (UINT32_MAX: none) waits first. Parameters: out, that
 * block, nanoseconds. */
#define LITHOS_ATOM_MARK "lithos_atom_mark"
/* ret[0] += how many of the n words at out are 1. Parameters: out, ret, n. Any number of threads, one block. */
#define LITHOS_ATOM_SUM "lithos_atom_sum"
/* ret[0] (64 bits) = the GPU's clock. Parameter: ret. One thread. */
#define LITHOS_ATOM_TIME "lithos_atom_time"

/* Stays for so many nanoseconds. Parameter: them. */
#define LITHOS_ATOM_WORK "lithos_atom_work"

#define LITHOS_ATOM_TEST_PTX                                     \
    ".version 7.0\n"                                             \
    ".target sm_52\n"                                            \
    ".address_size 64\n"                                         \
    ".visible .entry " LITHOS_ATOM_MARK "(\n"                    \
    "    .param .u64 out,\n"                                     \
    "    .param .u32 waits,\n"                                   \
    "    .param .u32 wait_ns\n"                                  \
    ")\n"                                                        \
    "{\n"                                                        \
    "    .reg .pred %p<4>;\n"                                    \
    "    .reg .b32 %r<14>;\n"                                    \
    "    .reg .b64 %rd<9>;\n"                                    \
    "    mov.u32 %r1, %tid.x;\n"                                 \
    "    setp.ne.u32 %p1, %r1, 0;\n"                             \
    "    @%p1 bra over;\n"                                       \
    "    ld.param.u64 %rd1, [out];\n"                            \
    "    ld.param.u32 %r9, [waits];\n"                           \
    "    ld.param.u32 %r10, [wait_ns];\n"                        \
    "    cvta.to.global.u64 %rd2, %rd1;\n"                       \
    "    mov.u32 %r2, %ctaid.x;\n"                               \
    "    mov.u32 %r3, %ctaid.y;\n"                               \
    "    mov.u32 %r4, %ctaid.z;\n"                               \
    "    mov.u32 %r5, %nctaid.x;\n"                              \
    "    mov.u32 %r6, %nctaid.y;\n"                              \
    "    mad.lo.u32 %r7, %r4, %r6, %r3;\n"                       \
    "    mad.lo.u32 %r8, %r7, %r5, %r2;\n"                       \
    "    setp.ne.u32 %p2, %r8, %r9;\n"                           \
    "    @%p2 bra mark;\n"                                       \
    "    mov.u64 %rd3, %globaltimer;\n"                          \
    "    cvt.u64.u32 %rd4, %r10;\n"                              \
    "    add.s64 %rd5, %rd3, %rd4;\n"                            \
    "stay:\n"                                                    \
    "    mov.u64 %rd6, %globaltimer;\n"                          \
    "    setp.lt.u64 %p3, %rd6, %rd5;\n"                         \
    "    @%p3 bra stay;\n"                                       \
    "mark:\n"                                                    \
    "    mul.wide.u32 %rd7, %r8, 4;\n"                           \
    "    add.s64 %rd8, %rd2, %rd7;\n"                            \
    "    mov.u32 %r11, 1;\n"                                     \
    "    atom.global.add.u32 %r12, [%rd8], %r11;\n"              \
    "over:\n"                                                    \
    "    ret;\n"                                                 \
    "}\n"                                                        \
    ".visible .entry " LITHOS_ATOM_SUM "(\n"                     \
    "    .param .u64 out,\n"                                     \
    "    .param .u64 ret_sum,\n"                                 \
    "    .param .u32 n\n"                                        \
    ")\n"                                                        \
    "{\n"                                                        \
    "    .reg .pred %p<3>;\n"                                    \
    "    .reg .b32 %r<8>;\n"                                     \
    "    .reg .b64 %rd<7>;\n"                                    \
    "    ld.param.u64 %rd1, [out];\n"                            \
    "    ld.param.u64 %rd2, [ret_sum];\n"                        \
    "    ld.param.u32 %r1, [n];\n"                               \
    "    cvta.to.global.u64 %rd3, %rd1;\n"                       \
    "    cvta.to.global.u64 %rd4, %rd2;\n"                       \
    "    mov.u32 %r2, %tid.x;\n"                                 \
    "    mov.u32 %r3, %ntid.x;\n"                                \
    "    mov.u32 %r4, 0;\n"                                      \
    "next:\n"                                                    \
    "    setp.ge.u32 %p1, %r2, %r1;\n"                           \
    "    @%p1 bra over;\n"                                       \
    "    mul.wide.u32 %rd5, %r2, 4;\n"                           \
    "    add.s64 %rd6, %rd3, %rd5;\n"                            \
    "    ld.global.u32 %r5, [%rd6];\n"                           \
    "    add.u32 %r2, %r2, %r3;\n"                               \
    "    setp.ne.u32 %p2, %r5, 1;\n"                             \
    "    @%p2 bra next;\n"                                       \
    "    add.u32 %r4, %r4, 1;\n"                                 \
    "    bra next;\n"                                            \
    "over:\n"                                                    \
    "    atom.global.add.u32 %r6, [%rd4], %r4;\n"                \
    "    ret;\n"                                                 \
    "}\n"                                                        \
    ".visible .entry " LITHOS_ATOM_TIME "(.param .u64 ret_ns)\n" \
    "{\n"                                                        \
    "    .reg .b64 %rd<4>;\n"                                    \
    "    ld.param.u64 %rd1, [ret_ns];\n"                         \
    "    cvta.to.global.u64 %rd2, %rd1;\n"                       \
    "    mov.u64 %rd3, %globaltimer;\n"                          \
    "    st.global.u64 [%rd2], %rd3;\n"                          \
    "    ret;\n"                                                 \
    "}\n"                                                        \
    "// lithos-vgpu: timing-only\n"                              \
    ".visible .entry " LITHOS_ATOM_WORK "(.param .u32 ns)\n"     \
    "{\n"                                                        \
    "    .reg .pred %p<2>;\n"                                    \
    "    .reg .b32 %r<2>;\n"                                     \
    "    .reg .b64 %rd<5>;\n"                                    \
    "    mov.u64 %rd1, %globaltimer;\n"                          \
    "    ld.param.u32 %r1, [ns];\n"                              \
    "    cvt.u64.u32 %rd2, %r1;\n"                               \
    "    add.s64 %rd3, %rd1, %rd2;\n"                            \
    "stay:\n"                                                    \
    "    mov.u64 %rd4, %globaltimer;\n"                          \
    "    setp.lt.u64 %p1, %rd4, %rd3;\n"                         \
    "    @%p1 bra stay;\n"                                       \
    "    ret;\n"                                                 \
    "}\n"
