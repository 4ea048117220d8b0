/* Any bytes as PTX text: refused or parsed, and what is parsed runs a block without leaving its memory. */
#include <string.h>

#include "fuzz/fuzz.h"
#include "vgpu/client/ptx.h"

#define DEVICE 0x0000a00000000000ull

static const char *const seeds[] = {
    ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry k(.param .u64 o, .param .u32 n)\n{\n"
    ".reg .pred %p<3>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<5>;\nld.param.u64 %rd1, [o];\nld.param.u32 %r1, "
    "[n];\n"
    "mov.u32 %r2, %tid.x;\nsetp.ge.u32 %p1, %r2, %r1;\n@%p1 bra END;\nmul.wide.u32 %rd2, %r2, 4;\n"
    "add.u64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r2;\nEND: bar.sync 0;\nret;\n}\n",
    ".version 8.3\n.target sm_90\n.global .align 4 .f32 t[3] = {0f3F800000, 1.5, -2.0};\n.extern .shared .b8 "
    "d[];\n"
    "// lithos-vgpu: timing-only\n.entry a() .maxntid 64, 1, 1 .reqnctapercluster 2\n{\n.shared .align 8 "
    ".b64 s[4];\n"
    ".reg .f32 %f<4>; .reg .b64 %x;\nL: fma.rn.ftz.f32 %f1, %f2, 0f40000000, %f3;\n{ .reg .f64 %f1; }\n"
    "mov.u64 %x, s; atom.shared.cas.b64 %x, [s+8], 1, 2; cvt.rzi.u64.f32 %x, %f1;\nbra.uni L;\n}\n",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char message[256];
    struct ptx_program *p;
    if (ptx_parse((const char *)data, size, &p, message, sizeof message))
        return 0;
    static _Alignas(16) uint8_t memory[4096], params[4096];
    struct {
        struct ptx_memory m;
        struct ptx_range r[1];
    } map = {{.count = 1}, {{DEVICE, sizeof memory, memory}}};
    static uint64_t globals[PTX_MAX_VARS];
    for (unsigned i = 0; i < PTX_MAX_VARS; i++)
        globals[i] = DEVICE;
    memcpy(params, &(uint64_t){DEVICE}, 8);
    for (uint32_t i = 0; i < p->entry_count; i++) {
        struct ptx_launch l = {.grid = {2, 1, 1},
                               .block = {4, 1, 1},
                               .params = params,
                               .globals = globals,
                               .memory = &map.m,
                               .shared_dynamic = 64,
                               .budget = 20000};
        ptx_run_block(&p->entries[i], &l, (uint32_t[3]){1, 0, 0}, 3);
    }
    ptx_free(p);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    if (n >= sizeof seeds / sizeof seeds[0] || strlen(seeds[n]) > size)
        return 0;
    memcpy(buf, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}
