/* The kernel that tells which SMs a launch got: each block notes %smid, then stays long enough for the others to be
 * placed elsewhere. Plain PTX of the oldest target the driver still takes. */
#pragma once

#define LITHOS_CENSUS_KERNEL "lithos_smid_census"
#define LITHOS_CENSUS_SLOTS 1024u /* a power of two above any SM number */

/* Parameters: address of LITHOS_CENSUS_SLOTS 32-bit words (slot %smid is set to 1), nanoseconds to stay. */
#define LITHOS_CENSUS_PTX                         \
    ".version 7.0\n"                              \
    ".target sm_52\n"                             \
    ".address_size 64\n"                          \
    ".visible .entry " LITHOS_CENSUS_KERNEL "(\n" \
    "    .param .u64 info,\n"                     \
    "    .param .u32 spin_ns\n"                   \
    ")\n"                                         \
    "{\n"                                         \
    "    .reg .pred %p<2>;\n"                     \
    "    .reg .b32 %r<5>;\n"                      \
    "    .reg .b64 %rd<9>;\n"                     \
    "    mov.u64 %rd1, %globaltimer;\n"           \
    "    ld.param.u64 %rd2, [info];\n"            \
    "    ld.param.u32 %r1, [spin_ns];\n"          \
    "    cvta.to.global.u64 %rd3, %rd2;\n"        \
    "    mov.u32 %r2, %smid;\n"                   \
    "    and.b32 %r3, %r2, 1023;\n"               \
    "    mul.wide.u32 %rd4, %r3, 4;\n"            \
    "    add.s64 %rd5, %rd3, %rd4;\n"             \
    "    mov.u32 %r4, 1;\n"                       \
    "    st.global.u32 [%rd5], %r4;\n"            \
    "    cvt.u64.u32 %rd6, %r1;\n"                \
    "    add.s64 %rd7, %rd1, %rd6;\n"             \
    "stay:\n"                                     \
    "    mov.u64 %rd8, %globaltimer;\n"           \
    "    setp.lt.u64 %p1, %rd8, %rd7;\n"          \
    "    @%p1 bra stay;\n"                        \
    "    ret;\n"                                  \
    "}\n"
