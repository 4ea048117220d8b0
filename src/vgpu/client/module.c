/* Modules, functions, libraries and kernels: PTX text, and images made of it by our own linker. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "vgpu/client/client.h"

#define MAX_IMAGE_BYTES (64u << 20)
#define CODE_BASE 0x0000700000000000ull /* program addresses: no memory is there, only names of functions */
#define CODE_STEP 0x10000ull

void vgpu_program_unref(struct vgpu_program *program)
{
    if (program && atomic_fetch_sub(&program->refs, 1) == 1) {
        for (uint32_t i = 0; program->code && i < program->ptx->entry_count; i++)
            free(program->code[i].text);
        free(program->code);
        ptx_free(program->ptx);
        free(program);
    }
}

static bool is_ptx(const char *image)
{
    for (const char *p = image; p - image < 4096 && *p; p++)
        if ((unsigned char)*p < 9)
            return false;
        else if (!strncmp(p, ".version", 8))
            return true;
    return false;
}

/* The text of a JIT error goes where the app asked for it: CU_JIT_ERROR_LOG_BUFFER 5, its size 6. */
static void jit_log(unsigned n, const int *options, void **values, const char *message)
{
    char *buf = NULL;
    size_t size = 0;
    for (unsigned i = 0; options && values && i < n; i++)
        if (options[i] == 5)
            buf = values[i];
        else if (options[i] == 6)
            size = (size_t)(unsigned)(uintptr_t)values[i];
    if (buf && size) {
        size_t len = LITHOS_MIN(strlen(message), size - 1);
        memcpy(buf, message, len);
        buf[len] = 0;
    }
}

CUresult vgpu_program_parse(const char *image, unsigned n, const int *options, void **values,
                            struct vgpu_program **ret_program)
{
    if (!is_ptx(image)) {
        lithos_warning("virtual GPU: module is no PTX text: cubins and fat binaries are not implemented");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    struct vgpu_program *p = calloc(1, sizeof *p);
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    char message[256];
    int r = ptx_parse(image, strlen(image), &p->ptx, message, sizeof message);
    if (r) {
        free(p);
        lithos_warning("virtual GPU: PTX: %s", message);
        jit_log(n, options, values, message);
        return r == -ENOMEM ? CUDA_ERROR_OUT_OF_MEMORY
                            : (r == -ENOTSUP ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_PTX);
    }
    atomic_init(&p->refs, 1);
    *ret_program = p;
    return CUDA_SUCCESS;
}

/* card NULL: only text. */
static CUresult parse(const void *image, const struct vgpu_card *card, unsigned n, const int *options,
                      void **values, struct vgpu_program **ret_program)
{
    char *text;
    if (!card || !vgpu_image_is_elf(image))
        return vgpu_program_parse(image, n, options, values, ret_program);
    VGPU_TRY(vgpu_image_ptx(image, &text));
    CUresult r = vgpu_program_parse(text, n, options, values, ret_program);
    free(text);
    if (r)
        return r;
    r = vgpu_image_code(image, card, *ret_program);
    if (r)
        vgpu_program_unref(*ret_program);
    return r;
}

/* Memory of the module's variables. */
static CUresult place_globals(struct CUmod_st *m)
{
    const struct ptx_program *ptx = m->program->ptx;
    for (uint32_t i = 0; i < ptx->var_count; i++) {
        VGPU_TRY(vgpu_alloc(m->ctx, LITHOS_MAX(ptx->vars[i].size, 1u), &m->globals[i]));
        if (ptx->vars[i].init)
            memcpy(vgpu_translate(m->globals[i], ptx->vars[i].size, NULL), ptx->vars[i].init,
                   ptx->vars[i].size);
    }
    return CUDA_SUCCESS;
}

static void module_free(struct CUmod_st *m)
{
    for (uint32_t i = 0; m->funcs && i < m->program->ptx->entry_count; i++)
        vgpu_handle_remove(&m->funcs[i]);
    for (uint32_t i = 0; m->globals && i < m->program->ptx->var_count; i++)
        if (m->globals[i])
            vgpu_release(m->globals[i]);
    vgpu_handle_remove(m);
    vgpu_program_unref(m->program);
    free(m->funcs);
    free(m->globals);
    free(m);
}

static pthread_mutex_t modules_lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUmod_st *modules; /* of all contexts, but for those of libraries */

/* Takes over the program. */
static CUresult module_make(struct CUctx_st *ctx, struct vgpu_program *program, struct CUmod_st **ret_module)
{
    static _Atomic uint64_t next_code;
    const struct ptx_program *ptx = program->ptx;
    const struct vgpu_card *card = &vgpu.devices[ctx->device].card;
    if (ptx->target > card->cc_major * 10 + card->cc_minor) {
        lithos_warning("virtual GPU: PTX for sm_%d, but %s is sm_%d%d", ptx->target, card->name,
                       card->cc_major, card->cc_minor);
        vgpu_program_unref(program);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    struct CUmod_st *m = calloc(1, sizeof *m);
    if (!m) {
        vgpu_program_unref(program);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    m->ctx = ctx;
    m->program = program;
    m->funcs = calloc(LITHOS_MAX(ptx->entry_count, 1u), sizeof *m->funcs);
    m->globals = calloc(LITHOS_MAX(ptx->var_count, 1u), sizeof *m->globals);
    CUresult r = m->funcs && m->globals ? place_globals(m) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r) {
        module_free(m);
        return r;
    }
    for (uint32_t i = 0; i < ptx->entry_count; i++) {
        int shared = card->attributes[8] - (int)ptx->entries[i].shared_bytes; /* without opting in to more */
        m->funcs[i] = (struct CUfunc_st){.module = m,
                                         .entry = &ptx->entries[i],
                                         .address = CODE_BASE + CODE_STEP * atomic_fetch_add(&next_code, 1),
                                         .max_dynamic_shared = LITHOS_MAX(0, shared),
                                         .carveout = -1};
        vgpu_handle_add(&m->funcs[i], VGPU_H_FUNC);
    }
    vgpu_handle_add(m, VGPU_H_MODULE);
    *ret_module = m;
    return CUDA_SUCCESS;
}

void vgpu_modules_drop(struct CUctx_st *ctx)
{
    pthread_mutex_lock(&modules_lock);
    for (struct CUmod_st **p = &modules; *p;) {
        struct CUmod_st *m = *p;
        if (m->ctx == ctx) {
            *p = m->next;
            module_free(m);
        } else {
            p = &m->next;
        }
    }
    pthread_mutex_unlock(&modules_lock);
}

const uint8_t *vgpu_code_at(struct CUctx_st *ctx, uint64_t address, size_t *ret_bytes)
{
    const uint8_t *found = NULL;
    pthread_mutex_lock(&modules_lock);
    for (const struct CUmod_st *m = modules; m && !found; m = m->next)
        for (uint32_t i = 0; m->ctx == ctx && m->program->code && i < m->program->ptx->entry_count; i++) {
            const struct vgpu_code *c = &m->program->code[i];
            if (address < m->funcs[i].address || address - m->funcs[i].address >= c->bytes)
                continue;
            found = c->text + (address - m->funcs[i].address);
            *ret_bytes = c->bytes - (address - m->funcs[i].address);
        }
    pthread_mutex_unlock(&modules_lock);
    return found;
}

CU_API(cuModuleLoadDataEx, CUmodule *ret, const void *image, unsigned int n, int *options, void **values)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || !image)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_program *program;
    VGPU_TRY(parse(image, &vgpu.devices[ctx->device].card, n, options, values, &program));
    struct CUmod_st *m;
    VGPU_TRY(module_make(ctx, program, &m));
    pthread_mutex_lock(&modules_lock);
    m->next = modules;
    modules = m;
    pthread_mutex_unlock(&modules_lock);
    *ret = m;
    return CUDA_SUCCESS;
}

CU_API(cuModuleLoadData, CUmodule *ret, const void *image)
{
    return cuModuleLoadDataEx(ret, image, 0, NULL, NULL);
}

CU_API(cuModuleLoad, CUmodule *ret, const char *path)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    char *text;
    size_t len;
    if (!ret || !path)
        return CUDA_ERROR_INVALID_VALUE;
    if (lithos_read_file(path, MAX_IMAGE_BYTES, &text, &len))
        return VGPU_CUDA_ERROR_FILE_NOT_FOUND;
    CUresult r = cuModuleLoadData(ret, text);
    free(text);
    return r;
}

CU_API(cuModuleLoadFatBinary, CUmodule *ret, const void *image)
{
    (void)ret;
    (void)image;
    VGPU_ENTER();
    lithos_log_once(LITHOS_LOG_WARNING, "virtual GPU: cuModuleLoadFatBinary: only PTX text is implemented");
    return CUDA_ERROR_INVALID_IMAGE;
}

CU_API(cuModuleUnload, CUmodule module)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!vgpu_handle_is(module, VGPU_H_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    VGPU_TRY(vgpu_wait_context(ctx));
    pthread_mutex_lock(&modules_lock);
    struct CUmod_st **p = &modules;
    while (*p && *p != module)
        p = &(*p)->next;
    bool own = *p != NULL; /* not a library's */
    if (own) {
        *p = module->next;
        module_free(module);
    }
    pthread_mutex_unlock(&modules_lock);
    return own ? CUDA_SUCCESS : CUDA_ERROR_NOT_PERMITTED;
}

static int entry_index(const struct vgpu_program *program, const char *name)
{
    const struct ptx_entry *e = ptx_find(program->ptx, name);
    return e ? (int)(e - program->ptx->entries) : -1;
}

CU_API(cuModuleGetFunction, CUfunction *ret, CUmodule module, const char *name)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || !name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!vgpu_handle_is(module, VGPU_H_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    int i = entry_index(module->program, name);
    if (i < 0)
        return CUDA_ERROR_NOT_FOUND;
    *ret = &module->funcs[i];
    return CUDA_SUCCESS;
}

CU_API(cuModuleGetFunctionCount, unsigned int *count, CUmodule module)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(module, VGPU_H_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = module->program->ptx->entry_count;
    return CUDA_SUCCESS;
}

static CUresult global(const struct CUmod_st *m, const char *name, CUdeviceptr *ptr, size_t *bytes)
{
    const struct ptx_program *ptx = m->program->ptx;
    for (uint32_t i = 0; i < ptx->var_count; i++)
        if (!strcmp(ptx->vars[i].name, name)) {
            if (ptr)
                *ptr = m->globals[i];
            if (bytes)
                *bytes = ptx->vars[i].size;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CU_API(cuModuleGetGlobal_v2, CUdeviceptr *ptr, size_t *bytes, CUmodule module, const char *name)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!vgpu_handle_is(module, VGPU_H_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    return name ? global(module, name, ptr, bytes) : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuModuleGetLoadingMode, int *mode)
{
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = 1; /* eager */
    return CUDA_SUCCESS;
}

/* ---- libraries: a program without a context, loaded into each that uses it */

CU_API(cuLibraryLoadData, CUlibrary *ret, const void *code, int *jit, void **jit_values, unsigned int jits,
       int *options, void **values, unsigned int n)
{
    (void)options; /* host-universal functions, preserve binary: nothing to do for either */
    (void)values;
    (void)n;
    VGPU_ENTER();
    if (!ret || !code)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUlib_st *lib = calloc(1, sizeof *lib);
    if (!lib)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult r = parse(code, NULL, jits, jit, jit_values, &lib->program);
    uint32_t entries = r ? 0 : lib->program->ptx->entry_count;
    if (!r && !(lib->kernels = calloc(LITHOS_MAX(entries, 1u), sizeof *lib->kernels))) {
        vgpu_program_unref(lib->program);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r) {
        free(lib);
        return r;
    }
    for (uint32_t i = 0; i < entries; i++) {
        lib->kernels[i] = (struct CUkern_st){lib, i};
        vgpu_handle_add(&lib->kernels[i], VGPU_H_KERNEL);
    }
    vgpu_handle_add(lib, VGPU_H_LIBRARY);
    *ret = lib;
    return CUDA_SUCCESS;
}

CU_API(cuLibraryUnload, CUlibrary lib)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(lib, VGPU_H_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    vgpu_handle_remove(lib);
    for (uint32_t i = 0; i < lib->program->ptx->entry_count; i++)
        vgpu_handle_remove(&lib->kernels[i]);
    while (lib->modules) {
        struct CUmod_st *m = lib->modules;
        lib->modules = m->next;
        if (vgpu_handle_is(m->ctx, VGPU_H_CTX))
            vgpu_wait_context(m->ctx);
        module_free(m);
    }
    vgpu_program_unref(lib->program);
    free(lib->kernels);
    free(lib);
    return CUDA_SUCCESS;
}

CU_API(cuLibraryGetKernel, CUkernel *ret, CUlibrary lib, const char *name)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(lib, VGPU_H_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!ret || !name)
        return CUDA_ERROR_INVALID_VALUE;
    int i = entry_index(lib->program, name);
    if (i < 0)
        return CUDA_ERROR_NOT_FOUND;
    *ret = &lib->kernels[i];
    return CUDA_SUCCESS;
}

CU_API(cuLibraryGetKernelCount, unsigned int *count, CUlibrary lib)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(lib, VGPU_H_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = lib->program->ptx->entry_count;
    return CUDA_SUCCESS;
}

static CUresult library_module(struct CUlib_st *lib, struct CUctx_st *ctx, struct CUmod_st **ret_module)
{
    CUresult r = CUDA_SUCCESS;
    pthread_mutex_lock(&modules_lock);
    struct CUmod_st *m = lib->modules;
    while (m && m->ctx != ctx)
        m = m->next;
    if (!m) {
        atomic_fetch_add(&lib->program->refs, 1);
        r = module_make(ctx, lib->program, &m);
        if (!r) {
            m->next = lib->modules;
            lib->modules = m;
        }
    }
    pthread_mutex_unlock(&modules_lock);
    if (!r)
        *ret_module = m;
    return r;
}

CU_API(cuLibraryGetModule, CUmodule *ret, CUlibrary lib)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!vgpu_handle_is(lib, VGPU_H_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    return ret ? library_module(lib, ctx, ret) : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuLibraryGetGlobal, CUdeviceptr *ptr, size_t *bytes, CUlibrary lib, const char *name)
{
    struct CUmod_st *m;
    VGPU_TRY(cuLibraryGetModule(&m, lib));
    return name ? global(m, name, ptr, bytes) : CUDA_ERROR_INVALID_VALUE;
}

CUresult vgpu_func_get(CUfunction handle, struct CUfunc_st **ret_func)
{
    if (vgpu_handle_is(handle, VGPU_H_FUNC)) {
        *ret_func = handle;
        return CUDA_SUCCESS;
    }
    if (!vgpu_handle_is(handle, VGPU_H_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    struct CUkern_st *kernel = (struct CUkern_st *)(void *)handle;
    struct CUctx_st *ctx;
    struct CUmod_st *m;
    VGPU_TRY(vgpu_current(&ctx));
    VGPU_TRY(library_module(kernel->library, ctx, &m));
    *ret_func = &m->funcs[kernel->entry];
    return CUDA_SUCCESS;
}
