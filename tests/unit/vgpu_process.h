/* Unit tests of the virtual GPU's libcuda.so.1: each in a process of its own, which loads the library as a program does. In there
 * a failure is said and ends the process. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/stub/vgpu_server.h"

#define LIBRARY LITHOS_BINARY_DIR "/lib/lithos/vgpu/libcuda.so.1"

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

/* server: what body started, if it did. */
static inline void in_process(void (*body)(void), const struct fake_server *server)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        unsetenv("CUDA_VISIBLE_DEVICES");
        unsetenv("CUDA_INJECTION64_PATH");
        setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1);
        alarm(50);
        body();
        if (server->dir[0]) {
            unlink(server->path);
            rmdir(server->dir);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* main of the tests NAME_body that TESTS(X) lists, which share the file's `server`. */
#define VGPU_TEST_FUNCTION(name)          \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        in_process(name##_body, &server); \
    }
#define VGPU_TEST_ENTRY(name) cmocka_unit_test(test_##name),
#define VGPU_TEST_MAIN(TESTS)                                       \
    TESTS(VGPU_TEST_FUNCTION)                                       \
    int main(void)                                                  \
    {                                                               \
        const struct CMUnitTest tests[] = {TESTS(VGPU_TEST_ENTRY)}; \
        return cmocka_run_group_tests(tests, NULL, NULL);           \
    }
