/* base: TPC sets, quantiles, atomic file writes. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpus.h"
#include "base/fs.h"
#include "base/quantile.h"
#include "base/ticks.h"
#include "base/tpcset.h"
#include "base/util.h"
#include "unit/cards.h"

static void tpcset_text_round_trips(void **state)
{
    (void)state;
    static const char *const texts[] = {"-", "0", "127", "0-3,9-16,75,78,81,83", "0-127", "63-64"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct lithos_tpcset s;
        char text[LITHOS_TPCSET_TEXT_MAX];
        assert_int_equal(lithos_tpcset_parse(texts[i], &s), 0);
        assert_string_equal(lithos_tpcset_format(&s, text), texts[i]);
    }
}

static void tpcset_longest_text_fits(void **state)
{
    (void)state;
    struct lithos_tpcset s = {{0xaaaaaaaaaaaaaaaaull, 0xaaaaaaaaaaaaaaaaull}}, back;
    char text[LITHOS_TPCSET_TEXT_MAX];
    assert_int_equal(lithos_tpcset_parse(lithos_tpcset_format(&s, text), &back), 0);
    assert_true(lithos_tpcset_equal(&s, &back));
    assert_int_equal(lithos_tpcset_count(&back), 64);
}

static void tpcset_refuses_bad_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "a", "128", "1,", ",1", "3-1", "1-", "-1", "1 2", "0x1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct lithos_tpcset s = {{7, 7}};
        assert_int_equal(lithos_tpcset_parse(texts[i], &s), -EINVAL);
        assert_int_equal(s.w[0], 7);
    }
}

static void tpcset_next_visits_each_bit_once(void **state)
{
    (void)state;
    struct lithos_tpcset s, seen = {{0, 0}};
    assert_int_equal(lithos_tpcset_parse("0,5,62-65,127", &s), 0);
    for (unsigned b = lithos_tpcset_next(&s, 0); b < LITHOS_TPC_BITS; b = lithos_tpcset_next(&s, b + 1)) {
        assert_false(lithos_tpcset_has(&seen, b));
        lithos_tpcset_add(&seen, b);
    }
    assert_true(lithos_tpcset_equal(&s, &seen));
}

static void nth_is_where_sorting_puts_it(void **state)
{
    (void)state;
    uint64_t seed = 5;

    for (unsigned round = 0; round < 2000; round++) {
        float v[300];
        double sorted[300];
        const uint32_t n = 1 + (uint32_t)(next_random(&seed) % 300),
                       values = 1 + (uint32_t)(next_random(&seed) % 400);
        const uint32_t nth = (uint32_t)(next_random(&seed) % n);
        double sum = 0, sum_after = 0;
        for (uint32_t i = 0; i < n; i++) {
            v[i] = (float)(next_random(&seed) % values); /* some of them many times */
            sorted[i] = (double)v[i];
            sum += sorted[i];
        }
        lithos_sort_samples(sorted, n);
        assert_true((double)lithos_nth_float(v, n, nth) == sorted[nth]);
        for (uint32_t i = 0; i < n; i++)
            sum_after += (double)v[i];
        assert_true(sum == sum_after);
    }
}

static void quantile_is_nearest_rank(void **state)
{
    (void)state;
    double v[] = {5, 1, 4, 2, 3};
    lithos_sort_samples(v, 5);
    assert_true(lithos_quantile(v, 5, 0.5) == 3);
    assert_true(lithos_quantile(v, 5, 0.99) == 5);
    assert_true(lithos_quantile(v, 5, 0) == 1);
    assert_true(lithos_quantile(v, 0, 0.5) == 0);
}

static void atomic_write_replaces_or_leaves(void **state)
{
    (void)state;
    char dir[] = "/tmp/lithos-test-XXXXXX", path[64], *text;
    size_t len;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a", dir);
    assert_int_equal(lithos_write_file_atomic(path, "one", 3, 0600), 0);
    assert_int_equal(lithos_write_file_atomic(path, "second", 6, 0600), 0);
    assert_int_equal(lithos_read_file(path, 100, &text, &len), 0);
    assert_int_equal(len, 6);
    assert_string_equal(text, "second");
    free(text);
    assert_int_equal(lithos_read_file(path, 3, &text, &len), -EFBIG);
    unlink(path);
    snprintf(path, sizeof path, "%s/no/such", dir);
    assert_int_equal(lithos_write_file_atomic(path, "x", 1, 0600), -ENOENT);
    snprintf(path, sizeof path, "%s/x/y/z", dir);
    assert_int_equal(lithos_mkdir_p(path, 0700), 0);
    assert_int_equal(lithos_mkdir_p(path, 0700), 0);
    for (char *p = path; strlen(p) > strlen(dir); *strrchr(p, '/') = '\0')
        assert_int_equal(rmdir(p), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* A counter of 2.1 GHz against a clock that is slewed by 500 ppm from the 20th second on. */
static uint64_t ticks_at(double ns)
{
    double slewed = ns < 20e9 ? ns : 20e9 + (ns - 20e9) * 1.0005;
    return 77 + (uint64_t)(slewed * 2.1);
}

static void ticks_follow_the_clock(void **state)
{
    (void)state;
    struct lithos_ticks_map m;
    const uint64_t start_ns = 9000000000;
    lithos_ticks_map_init(&m, ticks_at(0), start_ns);
    for (uint64_t ms = 2; ms < 60000; ms++) {
        double ns = (double)ms * 1e6;
        lithos_ticks_map_update(&m, ticks_at(ns), start_ns + ms * 1000000);
        for (int i = -20; i <= 1; i++) { /* up to 20 ms ago, and a ms on */
            double at = ns + i * 1e6, off;
            if (at < 0)
                continue;
            off = (double)(int64_t)(lithos_ticks_map_ns(&m, ticks_at(at)) - start_ns) - at;
            /* what half a thousandth of 20 ms is, while the rate is not known again */
            assert_true(off < 10100 && off > -10100);
            if (ns < 19e9 || ns > 31e9)
                assert_true(off < 50 && off > -50);
        }
    }
}

static void ticks_of_any_value(void **state)
{
    (void)state;
    struct lithos_ticks_map m;
    lithos_ticks_map_init(&m, 1000, 5000000);
    assert_int_equal(lithos_ticks_map_ns(&m, 1000), 5000000);
    lithos_ticks_map_update(&m, 1000 + 3000000, 6000000); /* a third of a ns a tick */
    static const uint64_t wild[] = {0, 1, UINT64_MAX, INT64_MAX, 1ull << 63};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(wild); i++) {
        uint64_t ns = lithos_ticks_map_ns(&m, wild[i]);
        assert_true(ns <= 6000000);
    }
    assert_int_equal(lithos_ticks_map_ns(&m, 1000 + 3000000 + 300), 6000100);
    if (lithos_ticks_steady()) {
        uint64_t a = lithos_ticks(), b = lithos_ticks();
        assert_true(b >= a);
    }
}

/* A file of a made-up machine, below the current folder's `machine`. */
static void put(const char *path, const char *text)
{
    char full[256], *slash;
    (void)snprintf(full, sizeof full, "machine%s", path);
    slash = strrchr(full, '/');
    *slash = '\0';
    assert_int_equal(lithos_mkdir_p(full, 0755), 0);
    *slash = '/';
    assert_int_equal(lithos_write_file_atomic(full, text, strlen(text), 0644), 0);
}

static void cpus_are_those_of_affinity_and_groups(void **state)
{
    (void)state;
    char dir[] = "/tmp/lithos-base-XXXXXX", before[4096], *removal;
    assert_non_null(mkdtemp(dir));
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(dir), 0);

    cpu_set_t all, some;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    unsigned ours = (unsigned)CPU_COUNT(&all), several = LITHOS_MIN(ours, 2u);
    assert_int_equal(lithos_cpus("machine"), ours); /* says nothing of groups */

    put("/proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(lithos_cpus("machine"), ours);
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(lithos_cpus("machine"), ours);
    put("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"); /* holds for those below */
    assert_int_equal(lithos_cpus("machine"), several);
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    assert_int_equal(lithos_cpus("machine"), 1);
    put("/sys/fs/cgroup/a/b/cpu.max", "nonsense\n");
    assert_int_equal(lithos_cpus("machine"), several);

    /* version 1; the name is the host's, and only the root is there */
    put("/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x/y\n");
    assert_int_equal(lithos_cpus("machine"), ours);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "199999\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_int_equal(lithos_cpus("machine"), 1);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(lithos_cpus("machine"), ours);

    CPU_ZERO(&some);
    for (int cpu = 0; !CPU_COUNT(&some); cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &some);
    assert_int_equal(sched_setaffinity(0, sizeof some, &some), 0);
    assert_int_equal(lithos_cpus("machine"), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);

    assert_int_equal(chdir(before), 0);
    assert_true(asprintf(&removal, "rm -r %s", dir) > 0);
    assert_int_equal(system(removal), 0);
    free(removal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tpcset_text_round_trips),
        cmocka_unit_test(tpcset_longest_text_fits),
        cmocka_unit_test(tpcset_refuses_bad_text),
        cmocka_unit_test(tpcset_next_visits_each_bit_once),
        cmocka_unit_test(quantile_is_nearest_rank),
        cmocka_unit_test(nth_is_where_sorting_puts_it),
        cmocka_unit_test(atomic_write_replaces_or_leaves),
        cmocka_unit_test(ticks_follow_the_clock),
        cmocka_unit_test(ticks_of_any_value),
        cmocka_unit_test(cpus_are_those_of_affinity_and_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
