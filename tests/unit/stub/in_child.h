/* Scenarios in processes of their own: what is under test happens once a process. */
#pragma once

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stub/stub_driver.h"

#ifdef __SANITIZE_THREAD__
/* Children start threads of their own, as DataLoader workers do, and there are many: no second's sleep at each exit. */
/* weak: a test of several files may include this in each of them. */
__attribute__((visibility("default"), weak)) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0:atexit_sleep_ms=0";
}
#endif

#define STUB_PATH LITHOS_BINARY_DIR "/tests/stub/libcuda.so.580.0.1"
#define LIBLITHOS_PATH LITHOS_BINARY_DIR "/lib/lithos/liblithos.so"

#define CHECK(expr)                                                                            \
    do {                                                                                       \
        if (!(expr)) {                                                                         \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #expr); \
            _exit(1);                                                                          \
        }                                                                                      \
    } while (0)
#define CHECK_EQ(a, b)                                                                                      \
    do {                                                                                                    \
        long long a_ = (long long)(a), b_ = (long long)(b);                                                 \
        if (a_ != b_) {                                                                                     \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld (%s)\n", __FILE__, __LINE__, __func__, #a, a_, \
                    b_, #b);                                                                                \
            _exit(1);                                                                                       \
        }                                                                                                   \
    } while (0)

/* Exit status of scenario() run in a child (0: every CHECK held); its standard error, also shown, in text. */
static inline int in_child(void (*scenario)(void), char *text, size_t size)
{
    int out[2];
    if (pipe(out) < 0)
        return -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDERR_FILENO);
        close(out[0]);
        close(out[1]);
        alarm(30); /* a scenario that hangs is a failure, not a wait */
        scenario();
        exit(0);
    }
    close(out[1]);
    size_t used = 0;
    char buffer[4096];
    for (ssize_t n; (n = read(out[0], buffer, sizeof buffer)) > 0;) {
        fwrite(buffer, 1, (size_t)n, stderr);
        for (ssize_t i = 0; text && i < n && used + 1 < size; i++)
            text[used++] = buffer[i];
    }
    if (text)
        text[used] = 0;
    close(out[0]);
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The library under test over the stub, and the stub's control block. */
static void *lithos_lib;
static struct stub_control *stub;

static inline void load_with(const char *driver)
{
    setenv("LITHOS_LIBCUDA", driver, 1);
    lithos_lib = dlopen(LIBLITHOS_PATH, RTLD_NOW | RTLD_GLOBAL);
    if (!lithos_lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lithos_lib);
}

static inline void load_stub(void)
{
    void *handle = dlopen(STUB_PATH, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(handle);
    stub = dlsym(handle, STUB_CONTROL);
    CHECK(stub);
    load_with(STUB_PATH);
}

#define OURS(name) dlsym(lithos_lib, name)

/* TESTS(X) names scenarios, X(name) each, whose functions are name_body: test_name is one of cmocka's, in a child of its own. */
#define CHILD_TEST(name)                                     \
    static void test_##name(void **state)                    \
    {                                                        \
        (void)state;                                         \
        assert_int_equal(in_child(name##_body, NULL, 0), 0); \
    }
#define CHILD_TEST_ROW(name) cmocka_unit_test(test_##name),
