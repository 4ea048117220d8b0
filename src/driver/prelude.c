#include "driver/prelude.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_BYTES_MAX (1u << 20)

#define STORE(i, offset)         \
    "    mov.u32 %r1, " #i ";\n" \
    "    st.global.u32 [%rd2+" #offset "], %r1;\n"

/* Of no use but for its room: stores to different places all stay. */
static const char ptx[] =
    ".version 7.0\n"
    ".target sm_52\n"
    ".address_size 64\n"
    ".visible .entry " LITHOS_PRELUDE_KERNEL "(.param .u64 scratch)\n"
    "{\n"
    "    .reg .b32 %r<2>;\n"
    "    .reg .b64 %rd<3>;\n"
    "    ld.param.u64 %rd1, [scratch];\n"
    "    cvta.to.global.u64 %rd2, %rd1;\n" STORE(0, 0) STORE(1, 256) STORE(2, 512) STORE(3, 768)
        STORE(4, 1024) STORE(5, 1280) STORE(6, 1536) STORE(7, 1792) STORE(8, 2048) STORE(9, 2304)
            STORE(10, 2560) STORE(11, 2816) STORE(12, 3072) STORE(13, 3328) STORE(14, 3584) STORE(15, 3840)
                STORE(16, 4096) STORE(17, 4352) STORE(18, 4608) STORE(19, 4864) STORE(20, 5120)
                    STORE(21, 5376) STORE(22, 5632) STORE(23, 5888) STORE(24, 6144) STORE(25, 6400)
                        STORE(26, 6656) STORE(27, 6912) STORE(28, 7168) STORE(29, 7424) STORE(30, 7680)
                            STORE(31, 7936) "    ret;\n"
                                            "}\n";

/* The driver's image for its card: a copy of the caller's (free). */
static int compile(const struct lithos_prelude_cuda *cu, void **ret_image, size_t *ret_bytes, char *why,
                   size_t why_bytes)
{
    CUlinkState state;
    void *image = NULL, *copy = NULL;
    size_t bytes = 0;
    char text[sizeof ptx];
    memcpy(text, ptx, sizeof text);
    CUresult result = cu->link_create(0, NULL, NULL, &state);
    if (result != CUDA_SUCCESS) {
        snprintf(why, why_bytes, "the driver cannot compile for the prelude (cuLinkCreate: error %d)",
                 result);
        return -ENOTSUP;
    }
    result = cu->link_add(state, CU_JIT_INPUT_PTX, text, sizeof text, LITHOS_PRELUDE_KERNEL, 0, NULL, NULL);
    if (result == CUDA_SUCCESS)
        result = cu->link_complete(state, &image, &bytes);
    if (result == CUDA_SUCCESS && image && bytes && bytes <= IMAGE_BYTES_MAX && (copy = malloc(bytes)))
        memcpy(copy, image, bytes); /* it goes with the state */
    cu->link_destroy(state);
    if (!copy) {
        snprintf(why, why_bytes,
                 "the driver does not compile the prelude's room (error %d): is its PTX compiler "
                 "(libnvidia-ptxjitcompiler) installed?",
                 result);
        return -ENOTSUP;
    }
    *ret_image = copy;
    *ret_bytes = bytes;
    return 0;
}

static int load(const struct lithos_prelude_cuda *cu, const void *image, CUmodule *ret_module,
                CUfunction *ret_kernel, char *why, size_t why_bytes)
{
    CUmodule module;
    const char *step = "cuModuleLoadData";
    CUresult result = cu->module_load(&module, image);
    if (result == CUDA_SUCCESS) {
        step = "cuModuleGetFunction";
        result = cu->module_function(ret_kernel, module, LITHOS_PRELUDE_KERNEL);
        if (result != CUDA_SUCCESS)
            cu->module_unload(module);
    }
    if (result != CUDA_SUCCESS) {
        snprintf(why, why_bytes, "the driver does not take the prelude (%s: error %d)", step, result);
        return -EIO;
    }
    *ret_module = module;
    return 0;
}

int lithos_prelude_load(const struct lithos_prelude_cuda *cu, const struct lithos_prelude_row *row,
                        CUmodule *ret_module, CUfunction *ret_kernel, char *why, size_t why_bytes)
{
    void *image;
    size_t bytes;
    int r = compile(cu, &image, &bytes, why, why_bytes);
    if (r < 0)
        return r;
    r = lithos_prelude_patch(row, image, bytes);
    if (r < 0)
        snprintf(why, why_bytes, "the image that the driver makes (%zu bytes) %s", bytes,
                 r == -EBADMSG ? "is not of the form known, or has no room for the prelude"
                               : "does not hold the prelude as it should");
    else
        r = load(cu, image, ret_module, ret_kernel, why, why_bytes);
    free(image);
    return r;
}
