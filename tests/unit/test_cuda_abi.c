/* cuda_abi.h and exports.def against cuda.h, where that was found (cuda_abi_sizes.c is built with it). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "cuda/cuda_abi.h"
#include "driver/exports.h"

#ifdef LITHOS_CUDA_H
#include <ctype.h>
#include <stdlib.h>

/* What cuda.h says, in the order of the lists below (stub/cuda_h_facts.c). */
extern const long long cuda_h_numbers[];
extern const size_t cuda_h_layout[], cuda_h_layout_count;

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        long long value;
    } ours[] = {
#define X(name, value) {#name, value},
        CUDA_RESULTS(X) CUDA_CONSTANTS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (ours[i].value != cuda_h_numbers[i])
            fail_msg("%s is %lld, in cuda.h %lld", ours[i].name, ours[i].value, cuda_h_numbers[i]);
}

static void test_layout(void **state)
{
    (void)state;
    static const size_t ours[] = {
#include "stub/cuda_layout.def"
    };
    assert_int_equal(sizeof ours / sizeof ours[0], cuda_h_layout_count);
    for (size_t i = 0; i < cuda_h_layout_count; i++)
        if (ours[i] != cuda_h_layout[i])
            fail_msg("row %zu of cuda_layout.def: %zu, in cuda.h %zu", i, ours[i], cuda_h_layout[i]);
}

static int exported(const char *name)
{
    static const char *const names[] = {
#define EXPORT(name) #name,
#include "cuda/exports.def"
#undef EXPORT
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(names[i], name))
            return 1;
    return 0;
}

/* The identifier at *at, into name; *at behind it. */
static void take_name(const char **at, char name[128])
{
    size_t n = 0;
    while (**at == ' ')
        (*at)++;
    while ((isalnum((unsigned char)**at) || **at == '_') && n < 127)
        name[n++] = *(*at)++;
    name[n] = 0;
}

static int checked;

static void need(const char *name)
{
    if (strncmp(name, "cu", 2) != 0 || !strncmp(name, "cuda", 4))
        return;
    checked++;
    if (!exported(name))
        fail_msg("%s is in cuda.h, not in exports.def", name);
}

/* Every function declared, and every name that a macro makes of one. */
static void test_names(void **state)
{
    (void)state;
    char *text, name[128], thread_name[140];
    size_t bytes;
    assert_int_equal(lithos_read_file(LITHOS_CUDA_H, 16u << 20, &text, &bytes), 0);
    for (const char *p = strstr(text, "CUresult CUDAAPI "); p; p = strstr(p, "CUresult CUDAAPI ")) {
        p += strlen("CUresult CUDAAPI ");
        take_name(&p, name);
        need(name);
    }
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, "#define cu", 10) != 0)
            continue;
        const char *p = line + 8;
        take_name(&p, name);
        while (*p == ' ')
            p++;
        const char *suffix = !strncmp(p, "__CUDA_API_PTSZ(", 16)   ? "_ptsz"
                             : !strncmp(p, "__CUDA_API_PTDS(", 16) ? "_ptds"
                                                                   : NULL;
        if (suffix)
            p += 16;
        take_name(&p, name);
        need(name);
        if (suffix) {
            snprintf(thread_name, sizeof thread_name, "%s%s", name, suffix);
            need(thread_name);
        }
    }
    free(text);
    assert_true(checked > 600); /* the reader above read something */
}
#else
static void test_numbers(void **state)
{
    (void)state;
    print_message("no cuda.h found when this was configured (CUDA_HOME, /usr/local/cuda): not compared\n");
    skip();
}
#define test_layout test_numbers
#define test_names test_numbers
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
