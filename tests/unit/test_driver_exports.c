/* liblithos.so as others see it: every name of the driver, nothing else, and each reaching its own function.
 */
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "stub/in_child.h"

static const char *const names[] = {
#define EXPORT(name) #name,
#include "cuda/exports.def"
#undef EXPORT
};
#define NAMES (sizeof names / sizeof names[0])

static const char *const hooked[] = {
#define HOOK(name, base, since, per_thread, kind) #name,
#define MARK(name, base, since, per_thread, args, on) #name,
#define WAIT(name, base, since, per_thread, what) #name,
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT
};

/* Functions that the stub implements: not to be called without arguments (stub_driver.c). */
static const char *const implemented[] = {
    "cuGetExportTable",
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuGetErrorName",
    "cuCtxGetStreamPriorityRange",
    "cuStreamCreateWithPriority",
    "cuEventCreate",
    "cuEventRecord",
    "cuMemcpyHtoD_v2",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuDeviceGetUuid_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxGetState",
    "cuDevicePrimaryCtxReset_v2",
    "cuCtxDestroy_v2",
    "cuCtxGetCurrent",
    "cuMemHostRegister_v2",
    "cuMemHostGetDevicePointer_v2",
    "cuMemHostUnregister",
    "cuThreadExchangeStreamCaptureMode",
    "cuFuncGetName",
    "cuKernelGetName",
    "cuStreamSynchronize",
    "cuStreamSynchronize_ptsz",
    "cuEventSynchronize",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxGetDevice",
    "cuCtxSynchronize",
    "cuMemAlloc_v2",
    "cuMemsetD8Async",
    "cuMemsetD2D32Async_ptsz",
    "cuMemFree_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncSetAttribute",
    "cuTexRefSetMipmapLevelBias",
};

static int is_in(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i], name))
            return 1;
    return 0;
}

/* ---- the symbol table ---- */

struct image {
    const uint8_t *data;
    const Elf64_Shdr *dynsym, *dynstr, *dynamic, *launch_data;
};

static struct image map_library(void)
{
    struct image i = {0};
    int fd = open(LIBLITHOS_PATH, O_RDONLY);
    struct stat st;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    i.data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(i.data != MAP_FAILED);
    close(fd);
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)i.data;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(i.data + e->e_shoff);
    for (int n = 0; n < e->e_shnum; n++) {
        if (s[n].sh_type == SHT_DYNSYM) {
            i.dynsym = &s[n];
            i.dynstr = &s[s[n].sh_link];
        }
        if (s[n].sh_type == SHT_DYNAMIC)
            i.dynamic = &s[n];
        if (!strcmp((const char *)i.data + s[e->e_shstrndx].sh_offset + s[n].sh_name, "lithos_launch_data"))
            i.launch_data = &s[n];
    }
    if (!i.dynsym || !i.dynstr || !i.dynamic || !i.launch_data) {
        fprintf(stderr, "%s: no dynamic symbols, or no data of launches\n", LIBLITHOS_PATH);
        exit(1);
    }
    return i;
}

static void test_exports_exactly_the_driver(void **state)
{
    (void)state;
    static const char *const ours[] = {"InitializeInjection", "lithos_library_marker", "cuptiSubscribe",
                                       "cuptiSubscribe_v2"};
    struct image i = map_library();
    const Elf64_Sym *symbols = (const Elf64_Sym *)(i.data + i.dynsym->sh_offset);
    size_t count = i.dynsym->sh_size / sizeof *symbols, found = 0;
    for (size_t n = 0; n < count; n++) {
        const char *name = (const char *)i.data + i.dynstr->sh_offset + symbols[n].st_name;
        if (symbols[n].st_shndx == SHN_UNDEF || !*name)
            continue;
        if (is_in(name, names, NAMES))
            found++;
        else if (!is_in(name, ours, LITHOS_ARRAY_SIZE(ours)))
            fail_msg("exports %s, which no driver does", name);
    }
    assert_int_equal(found, NAMES);
}

static void test_needs_libc_alone_and_is_called_libcuda(void **state)
{
    (void)state;
    struct image i = map_library();
    const Elf64_Dyn *d = (const Elf64_Dyn *)(i.data + i.dynamic->sh_offset);
    const char *strings = (const char *)i.data + i.dynstr->sh_offset;
    int soname = 0;
    for (; d->d_tag != DT_NULL; d++) {
        const char *text = strings + d->d_un.d_val;
        if (d->d_tag == DT_SONAME)
            soname = !strcmp(text, "libcuda.so.1");
        if (d->d_tag == DT_NEEDED && strcmp(text, "libc.so.6") != 0 && !strstr(text, "san.so") &&
            !strstr(text, "ld-linux"))
            fail_msg("needs %s", text);
        /* Loading it must run nothing: the linker's own frame_dummy and the like are one entry. */
        if (d->d_tag == DT_INIT_ARRAYSZ && !LITHOS_SANITIZED)
            assert_true(d->d_un.d_val <= sizeof(void *));
    }
    assert_true(soname);
}

/* LITHOS_LAUNCH_DATA: each further page is a translation that a launch waits for. */
static void test_launch_data_is_one_page(void **state)
{
    (void)state;
    struct image i = map_library();
    assert_int_equal(i.launch_data->sh_addr % 4096, 0);
    assert_true(LITHOS_SANITIZED || i.launch_data->sh_size <= 4096); /* else with gaps between them */
}

static void test_list_is_sorted(void **state)
{
    (void)state;
    for (size_t n = 1; n < NAMES; n++)
        if (strcmp(names[n - 1], names[n]) >= 0)
            fail_msg("%s stands before %s", names[n - 1], names[n]);
    for (size_t n = 0; n < sizeof hooked / sizeof hooked[0]; n++)
        if (!is_in(hooked[n], names, NAMES))
            fail_msg("%s is hooked but not exported", hooked[n]);
}

/* Every memset and memcpy of the driver is marked: one missing would count its kernels as escaped. */
static void test_no_copy_is_forgotten(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        int copies = !strncmp(names[n], "cuMemset", 8) || !strncmp(names[n], "cuMemcpy", 8);
        int launches = (!strncmp(names[n], "cuLaunch", 8) && !strstr(names[n], "HostFunc")) ||
                       !strncmp(names[n], "cuGraphLaunch", 13) || !strncmp(names[n], "cuGraphUpload", 13) ||
                       !strncmp(names[n], "cuGraphInstantiate", 18) ||
                       !strncmp(names[n], "cuGetProcAddress", 16);
        if ((copies || launches) && !is_in(names[n], hooked, sizeof hooked / sizeof hooked[0]))
            fail_msg("%s is not hooked", names[n]);
    }
}

/* ---- calls ---- */

/* Neither hooked nor implemented: returns its number, whatever it is given. */
static int callable(const char *name)
{
    return !is_in(name, hooked, sizeof hooked / sizeof hooked[0]) &&
           !is_in(name, implemented, sizeof implemented / sizeof implemented[0]);
}

static void each_reaches_its_own(void)
{
    load_stub();
    void *driver = dlopen(STUB_PATH, RTLD_NOW | RTLD_NOLOAD);
    int checked = 0;
    for (int again = 0; again < 2; again++) /* through the stub, then through the slot */
        for (size_t n = 0; n < NAMES; n++) {
            int (*real)(void) = (int (*)(void))dlsym(driver, names[n]);
            int (*ours)(void) = (int (*)(void))OURS(names[n]);
            CHECK(real && ours && real != ours);
            Dl_info info;
            CHECK(dladdr((void *)ours, &info) && strstr(info.dli_fname, "liblithos.so"));
            if (!callable(names[n]))
                continue;
            CHECK_EQ(ours(), STUB_RESULT_BASE + (int)n);
            checked++;
        }
    CHECK(checked > 950); /* of 2 x 683, less the hooked ones and those that the stub implements */
}

static void test_each_reaches_its_own(void **state)
{
    (void)state;
    assert_int_equal(in_child(each_reaches_its_own, NULL, 0), 0);
}

static void arguments_survive_the_first_call(void)
{
    load_stub();
    int (*bias)(void *, float) = (int (*)(void *, float))OURS("cuTexRefSetMipmapLevelBias");
    CHECK_EQ(bias((void *)77, 2.5f), 77);
    CHECK(stub->last_float == 2.5f);
    /* eleven words, five of them on the stack; the hook's own way to the real one starts at a stub too */
    CUresult (*launch)(uint64_t, ...) = (CUresult(*)(uint64_t, ...))OURS("cuLaunchKernel");
    CHECK_EQ(launch(0x20, 2ull, 3ull, 4ull, 32ull, 6ull, 7ull, 8ull, 9ull, 10ull, 11ull), CUDA_SUCCESS);
    static const uint64_t words[11] = {0x20, 2, 3, 4, 32, 6, 7, 8, 9, 10, 11};
    CHECK(!memcmp(words, stub->last_words, sizeof words));
    CUresult (*batch)(uint64_t, ...) = (CUresult(*)(uint64_t, ...))OURS("cuMemcpyBatchAsync");
    CHECK_EQ(batch(1, 2ull, 3ull, 4ull, 5ull, 6ull, 7ull, 8ull, 9ull), CUDA_SUCCESS);
    for (uint64_t i = 0; i < 9; i++)
        CHECK_EQ(stub->last_batch[i], i + 1);
}

static void test_arguments_survive_the_first_call(void **state)
{
    (void)state;
    assert_int_equal(in_child(arguments_survive_the_first_call, NULL, 0), 0);
}

static void *call_many(void *barrier)
{
    pthread_barrier_wait(barrier);
    for (size_t n = 0; n < NAMES; n += 7) {
        int (*ours)(void) = (int (*)(void))OURS(names[n]);
        if (callable(names[n]))
            CHECK_EQ(ours(), STUB_RESULT_BASE + (int)n);
    }
    return NULL;
}

static void first_calls_race(void)
{
    load_stub();
    pthread_t threads[8];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 8);
    for (int i = 0; i < 8; i++)
        CHECK(!pthread_create(&threads[i], NULL, call_many, &barrier));
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
}

static void test_first_calls_race(void **state)
{
    (void)state;
    assert_int_equal(in_child(first_calls_race, NULL, 0), 0);
}

/* ---- no driver ---- */

static void without_driver(void)
{
    load_with("/nonexistent/libcuda.so.1");
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))OURS("cuInit");
    CUresult (*count)(int *) = (CUresult(*)(int *))OURS("cuDeviceGetCount");
    int n = -1;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(init(0), CUDA_ERROR_NO_DEVICE);
        CHECK_EQ(count(&n), CUDA_ERROR_NO_DEVICE);
    }
    CHECK_EQ(n, -1);
}

static int occurrences(const char *text, const char *word)
{
    int n = 0;
    for (const char *p = strstr(text, word); p; p = strstr(p + 1, word))
        n++;
    return n;
}

static void test_without_driver(void **state)
{
    (void)state;
    char said[8192];
    assert_int_equal(in_child(without_driver, said, sizeof said), 0);
    assert_string_equal(said, ""); /* a pass-through keeps quiet */
    setenv("LITHOS_TENANT", "1:00112233445566778899aabbccddeeff", 1);
    assert_int_equal(in_child(without_driver, said, sizeof said), 0);
    assert_int_equal(occurrences(said, "no CUDA driver found"), 1);
    assert_non_null(strstr(said, "/nonexistent/libcuda.so.1"));
    unsetenv("LITHOS_TENANT");
}

/* LITHOS_LIBCUDA naming the library itself, or a copy: not a driver, and no endless loop. */
static void driver_is_itself(void)
{
    load_with(LIBLITHOS_PATH);
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))OURS("cuInit");
    CHECK_EQ(init(0), CUDA_ERROR_NO_DEVICE);
}

static void driver_is_a_copy(void)
{
    char copy[] = "/tmp/lithos-copy-XXXXXX", command[1024];
    CHECK(mkdtemp(copy));
    snprintf(command, sizeof command, "cp %s %s/libcuda.so.1", LIBLITHOS_PATH, copy);
    CHECK_EQ(system(command), 0);
    strcpy(command, copy);
    strcat(command, "/libcuda.so.1");
    load_with(command);
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))OURS("cuInit");
    CHECK_EQ(init(0), CUDA_ERROR_NO_DEVICE);
    unlink(command);
    rmdir(copy);
}

static void test_never_itself(void **state)
{
    (void)state;
    char said[8192];
    setenv("LITHOS_LOG", "info", 1);
    assert_int_equal(in_child(driver_is_itself, said, sizeof said), 0);
    assert_non_null(strstr(said, "is LithOS itself"));
    assert_int_equal(in_child(driver_is_a_copy, said, sizeof said), 0);
    assert_non_null(strstr(said, "copy of LithOS"));
    unsetenv("LITHOS_LOG");
}

int main(void)
{
    unsetenv("LITHOS_TENANT");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exports_exactly_the_driver),
        cmocka_unit_test(test_needs_libc_alone_and_is_called_libcuda),
        cmocka_unit_test(test_launch_data_is_one_page),
        cmocka_unit_test(test_list_is_sorted),
        cmocka_unit_test(test_no_copy_is_forgotten),
        cmocka_unit_test(test_each_reaches_its_own),
        cmocka_unit_test(test_arguments_survive_the_first_call),
        cmocka_unit_test(test_first_calls_race),
        cmocka_unit_test(test_without_driver),
        cmocka_unit_test(test_never_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
