/* The virtual GPU's MPS: its control's commands, what a client tells lithos-vgpud, and what clients learn of a server
 * that dies. */
#include <dlfcn.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda/cuda_abi.h"
#include "unit/stub/vgpu_server.h"

#define LIBRARY LITHOS_BINARY_DIR "/lib/lithos/vgpu/libcuda.so.1"
#define CONTROL LITHOS_BINARY_DIR "/libexec/lithos/vgpu/nvidia-cuda-mps-control"

static char dir[] = "/tmp/vgpu_mps_XXXXXX";

/* The output of a command line on the control, cut at the first line end; its exit code. */
static int control(const char *command, char *out, size_t size)
{
    char line[512];
    snprintf(line, sizeof line, "echo '%s' | timeout 2 " CONTROL " 2>&1", command);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    out[strcspn(out, "\n")] = 0;
    return WEXITSTATUS(pclose(f));
}

static int setup(void **state)
{
    (void)state;
    char text[128];
    if (!dir[0] || (strstr(dir, "XXXXXX") && !mkdtemp(dir)))
        return -1;
    snprintf(text, sizeof text, "%s/pipe", dir);
    setenv("CUDA_MPS_PIPE_DIRECTORY", text, 1);
    snprintf(text, sizeof text, "%s/log", dir);
    setenv("CUDA_MPS_LOG_DIRECTORY", text, 1);
    return system(CONTROL " -d");
}

static int teardown(void **state)
{
    (void)state;
    char out[256];
    control("quit -t 0", out, sizeof out);
    for (int i = 0; i < 200 && control("get_server_list", out, sizeof out) == 0; i++)
        usleep(10000);
    return 0;
}

/* %smid and %nsmid as a kernel behind a mask of TPCs 3 and 9 sees them: numbered from 0 among the 4 SMs allowed, however
 * few of them it ran on. Hexadecimal digits: 4 blocks' %smid and %nsmid, one block's %smid and %nsmid. */
static void mask_two(void *user, int domain, int id, const void *params)
{
    (void)user;
    (void)domain;
    (void)id;
    void *qmd = (void *)(uintptr_t)((const uint64_t *)params)[LITHOS_QMD_PARAMS_QMD];
    struct lithos_tpcset two = {{1u << 3 | 1u << 9, 0}};
    if (lithos_qmd_set_tpcs(lithos_qmd_layout(LITHOS_QMD_V04_00), qmd, &two))
        _exit(3);
}

static const char numbers_ptx[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry numbers(.param .u64 p_out)\n{\n"
    ".reg .b32 %r<5>; .reg .b64 %rd<4>;\n"
    "ld.param.u64 %rd1, [p_out]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %smid; mov.u32 %r3, %nsmid;\n"
    "mul.wide.u32 %rd2, %r1, 8; add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r2;\n"
    "st.global.u32 [%rd3+4], %r3;\nret;\n}\n";

static uint64_t masked_numbers(void *lib)
{
    static const CUuuid id = LITHOS_QMD_TABLE_UUID;
    int (*table_of)(const void **, const CUuuid *) =
        (int (*)(const void **, const CUuuid *))dlsym(lib, "cuGetExportTable");
    int (*load)(CUmodule *, const void *) = (int (*)(CUmodule *, const void *))dlsym(lib, "cuModuleLoadData");
    int (*get)(CUfunction *, CUmodule, const char *) =
        (int (*)(CUfunction *, CUmodule, const char *))dlsym(lib, "cuModuleGetFunction");
    int (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                  void **, void **) =
        (int (*)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                 void **, void **))dlsym(lib, "cuLaunchKernel");
    int (*pinned)(void **, size_t, unsigned) =
        (int (*)(void **, size_t, unsigned))dlsym(lib, "cuMemHostAlloc");
    int (*synchronise)(void) = (int (*)(void))dlsym(lib, "cuCtxSynchronize");
    const void *const *table;
    uint32_t handle, (*out)[2];
    CUmodule m;
    CUfunction f;
    if (table_of((const void **)&table, &id) ||
        ((lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE])(&handle, mask_two, NULL) ||
        ((lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE])(1, handle, LITHOS_QMD_DOMAIN,
                                                               LITHOS_QMD_CALLBACK_ID) ||
        load(&m, numbers_ptx) || get(&f, m, "numbers") || pinned((void **)&out, 64, 0))
        _exit(4);
    void *params[] = {&out};
    uint64_t told = 0;
    for (unsigned k = 0; k < 2; k++) {
        unsigned blocks = k ? 1 : 4;
        if (launch(f, blocks, 1, 1, 1, 1, 1, 0, NULL, params, NULL) || synchronise())
            _exit(5);
        for (unsigned i = 0; i < blocks; i++)
            told = told << 4 | (out[i][0] & 15);
        told = told << 4 | (out[0][1] & 15);
    }
    return told;
}

/* A process that becomes a client; result: of cuCtxSynchronize after the server's end, or of cuInit. */
static pid_t client(int *ret_ready)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static struct fake_server server;
        alarm(30);
        setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "30", 1);
        setenv("CUDA_MPS_CLIENT_PRIORITY", "1", 1);
        fake_server_start(&server);
        void *lib = dlopen(LIBRARY, RTLD_NOW);
        int (*init)(unsigned) = (int (*)(unsigned))dlsym(lib, "cuInit");
        int (*attribute)(int *, int, int) = (int (*)(int *, int, int))dlsym(lib, "cuDeviceGetAttribute");
        int (*retain)(CUcontext *, int) = (int (*)(CUcontext *, int))dlsym(lib, "cuDevicePrimaryCtxRetain");
        int (*set)(CUcontext) = (int (*)(CUcontext))dlsym(lib, "cuCtxSetCurrent");
        int (*synchronise)(void) = (int (*)(void))dlsym(lib, "cuCtxSynchronize");
        CUcontext ctx;
        int sms = 0, r = init(0);
        if (r || attribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0) || retain(&ctx, 0) || set(ctx))
            _exit(1);
        uint64_t told[4] = {server.hello.mps_domain, server.hello.thread_percent * 1000ull + (uint64_t)sms,
                            server.hello.mps * 10 + (uint64_t)server.hello.priority, masked_numbers(lib)};
        if (write(ready[1], told, sizeof told) != sizeof told)
            _exit(1);
        for (int i = 0; i < 2000 && (r = synchronise()) == 0; i++)
            usleep(10000);
        unlink(server.path);
        rmdir(server.dir);
        _exit(r == CUDA_ERROR_MPS_RPC_FAILURE ? 0 : 2);
    }
    close(ready[1]);
    *ret_ready = ready[0];
    return pid;
}

static void a_client_comes_and_its_server_dies(void **state)
{
    (void)state;
    char out[256], command[64];
    int ready, status;
    uint64_t told[4];
    assert_int_equal(control("get_server_list", out, sizeof out), 0);
    assert_string_equal(out, "");
    pid_t pid = client(&ready);
    assert_int_equal(read(ready, told, sizeof told), sizeof told);
    assert_int_equal(told[1], 30 * 1000 + 40); /* 30 % of 66 TPCs, rounded up: 20 TPCs */
    assert_int_equal(told[2], 11);
    assert_int_equal(told[3], 0x0123404);
    assert_int_equal(control("get_server_list", out, sizeof out), 0);
    int server = atoi(out);
    assert_true(server > 1);
    assert_int_equal(told[0], server);
    snprintf(command, sizeof command, "get_server_status %d", server);
    control(command, out, sizeof out);
    assert_string_equal(out, "ACTIVE");
    snprintf(command, sizeof command, "get_client_list %d", server);
    control(command, out, sizeof out);
    assert_int_equal(atoi(out), pid);
    kill(server, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    control(command, out, sizeof out);
    assert_string_equal(out, "Server not found");
    close(ready);
}

static void a_wedged_server_answers_nothing(void **state)
{
    (void)state;
    char out[256], command[64];
    int ready, status;
    assert_int_equal(control("start_server -uid 0", out, sizeof out), 0);
    snprintf(command, sizeof command, "start_server -uid %u", (unsigned)getuid());
    control(command, out, sizeof out);
    control("get_server_list", out, sizeof out);
    int server = atoi(out);
    assert_true(server > 1);
    assert_int_equal(control("lithos_wedge", out, sizeof out), 0);
    snprintf(command, sizeof command, "get_server_status %d", server);
    assert_int_equal(control(command, out, sizeof out), 124); /* killed by timeout */
    pid_t pid = client(&ready);
    struct pollfd pfd = {.fd = ready, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 500), 0); /* let in by nobody */
    snprintf(command, sizeof command, "shutdown_server %d -f", server);
    assert_int_equal(control(command, out, sizeof out), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 1 << 8); /* cuInit failed */
    close(ready);
}

static void the_control_ends(void **state)
{
    (void)state;
    char out[256];
    int ready, status;
    uint64_t told[4];
    assert_int_not_equal(system(CONTROL " -d 2>/dev/null"), 0); /* there is one already */
    pid_t pid = client(&ready);
    assert_int_equal(read(ready, told, sizeof told), sizeof told);
    assert_int_equal(control("quit", out, sizeof out), 0); /* waits for its clients */
    usleep(100000);
    assert_int_equal(control("get_server_list", out, sizeof out), 0);
    assert_int_equal(atoi(out), told[0]);
    assert_int_equal(control("quit -t 0", out, sizeof out), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (int i = 0; i < 200 && control("get_server_list", out, sizeof out) == 0; i++)
        usleep(10000);
    assert_int_equal(control("get_server_list", out, sizeof out), 1);
    assert_string_equal(out, "Cannot find MPS control daemon process");
    close(ready);
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_client_comes_and_its_server_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wedged_server_answers_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_control_ends, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
