/* lithos-probe over the stub driver: what it finds, beside neighbours that disturb it, and what it does with its cache. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fs.h"
#include "cards.h"
#include "cuda/cuda_abi.h"
#include "driver/ldcache.h"
#include "driver/loader.h"
#include "driver/probe.h"
#include "stub/in_child.h"

static struct lithos_probe p;
static char dir[] = "/tmp/lithos-probe-XXXXXX";

static void open_stub(const char *valid)
{
    setenv("LITHOS_LIBCUDA", STUB_PATH, 1);
    void *driver = dlopen(STUB_PATH, RTLD_NOW | RTLD_LOCAL);
    CHECK(driver);
    stub = dlsym(driver, STUB_CONTROL);
    CHECK(stub);
    CHECK_EQ(lithos_tpcset_parse(valid, &stub->valid), 0);
}

static void finds_h200(void)
{
    open_stub(H200_VALID);
    CHECK_EQ(lithos_probe_open(&p), 0);
    CHECK_EQ(p.gpu_count, 1);
    CHECK(!strcmp(p.driver, "580.0.1"));
    CHECK(!p.is_virtual);
    stub->busy_launches = 2; /* a neighbour */
    CHECK_EQ(lithos_probe_topology(&p, &p.gpus[0]), 0);
    struct lithos_topology want = card_h200();
    CHECK(!memcmp(&p.gpus[0].topology, &want, sizeof want));
    CHECK(p.gpus[0].hook && !p.gpus[0].cached && p.gpus[0].sm_count == 132);
    CHECK(!strcmp(p.gpus[0].qmd, "V04_00"));
    CHECK_EQ(lithos_probe_canary(&p.gpus[0]), 0);
    /* and out of the cache */
    CHECK(mkdtemp(dir));
    struct lithos_probe_gpu probed = p.gpus[0], cached = p.gpus[0];
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), -ENOENT);
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &probed), 0);
    memset(&cached.topology, 0, sizeof cached.topology);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(cached.cached && !memcmp(&cached.topology, &want, sizeof want));
    cached.sm_count = 130; /* another card */
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), -EBADMSG);
    char path[256];
    snprintf(path, sizeof path, "%s/topology-%s-580.0.1.json", dir, probed.uuid_text);
    CHECK_EQ(truncate(path, 40), 0);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), -EBADMSG);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(rmdir(dir), 0);
    /* a folder that cannot be: said by the caller, the answer stands */
    CHECK(lithos_probe_cache_store("/dev/null/x", &p, &probed) < 0);
    CHECK(lithos_probe_cache_store("/dev/full", &p, &probed) < 0);
}

static void stamps(void)
{
    open_stub("0-31");
    CHECK_EQ(lithos_probe_open(&p), 0);
    CHECK_EQ(lithos_probe_topology(&p, &p.gpus[0]), 0);
    CHECK(!p.gpus[0].have_stamps);
    CHECK_EQ(lithos_probe_stamps(&p.gpus[0]), 0);
    CHECK(p.gpus[0].have_stamps && p.gpus[0].stamps && !p.gpus[0].stamps_why[0]);
    CHECK_EQ(stub->stamps_written, 3);
    CHECK(stub->faults == 0 && stub->registrations == 0);
    /* kept, and a file of before has none */
    CHECK(mkdtemp(dir));
    struct lithos_probe_gpu cached = p.gpus[0];
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &p.gpus[0]), 0);
    cached.stamps = cached.have_stamps = false;
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(cached.stamps && cached.have_stamps);
    p.gpus[0].have_stamps = false;
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &p.gpus[0]), 0);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(!cached.have_stamps);
    char path[256];
    snprintf(path, sizeof path, "%s/topology-%s-580.0.1.json", dir, cached.uuid_text);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
}

static void check_no_stamps(const char *why)
{
    CHECK_EQ(lithos_probe_stamps(&p.gpus[0]), 0);
    CHECK(p.gpus[0].have_stamps && !p.gpus[0].stamps);
    if (!strstr(p.gpus[0].stamps_why, why))
        fprintf(stderr, "%s\n", p.gpus[0].stamps_why);
    CHECK(strstr(p.gpus[0].stamps_why, why));
}

static void no_stamps(void)
{
    open_stub("0-31");
    CHECK_EQ(lithos_probe_open(&p), 0);
    stub->no_stamps = 1;
    check_no_stamps("no stamp came");
    stub->no_stamps = 0;
    stub->stamp_elsewhere = 1;
    check_no_stamps("instead of");
    stub->stamp_elsewhere = 0;
    stub->taken = 1;
    check_no_stamps("cannot be set");
    stub->taken = 0;
    stub->quick_stamps = 1; /* the time stands still */
    check_no_stamps("makes no sense");
    stub->quick_stamps = 0;
    stub->register_result = CUDA_ERROR_NOT_SUPPORTED;
    check_no_stamps("does not register");
}

/* What the stub cannot do: the answer is no, with a reason, and kept. The yes is asked of the virtual GPU (e2e/atoms). */
static void no_atoms(void)
{
    open_stub("0-31");
    CHECK_EQ(lithos_probe_open(&p), 0);
    CHECK_EQ(lithos_probe_topology(&p, &p.gpus[0]), 0);
    CHECK_EQ(lithos_probe_atoms(&p.gpus[0]), 0);
    CHECK(p.gpus[0].have_atoms && !p.gpus[0].atoms && p.gpus[0].exit_ps == 0);
    CHECK(strstr(p.gpus[0].atoms_why, "memory for the test fails"));
    CHECK(mkdtemp(dir));
    struct lithos_probe_gpu cached = p.gpus[0];
    p.gpus[0].atoms = true;
    p.gpus[0].exit_ps = 123;
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &p.gpus[0]), 0);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(cached.have_atoms && cached.atoms && cached.exit_ps == 123);
    CHECK(!strcmp(cached.atoms_why, p.gpus[0].atoms_why));
    p.gpus[0].have_atoms = false;
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &p.gpus[0]), 0);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(!cached.have_atoms && cached.atoms_tries == 0);
    p.gpus[0].atoms_tries = 2; /* begun, and not ended so far */
    CHECK_EQ(lithos_probe_cache_store(dir, &p, &p.gpus[0]), 0);
    CHECK_EQ(lithos_probe_cache_load(dir, &p, &cached), 0);
    CHECK(!cached.have_atoms && cached.atoms_tries == 2);
    char path[256];
    snprintf(path, sizeof path, "%s/topology-%s-580.0.1.json", dir, cached.uuid_text);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    /* a card without a prelude */
    p.gpus[0].cc_major = 7;
    CHECK_EQ(lithos_probe_atoms(&p.gpus[0]), 0);
    CHECK(p.gpus[0].have_atoms && !p.gpus[0].atoms && strstr(p.gpus[0].atoms_why, "no prelude"));
    p.gpus[0].cc_major = 8;
    CHECK_EQ(lithos_probe_atoms(&p.gpus[0]), 0);
    CHECK(!p.gpus[0].atoms && strstr(p.gpus[0].atoms_why, "LITHOS_UNTESTED_GPU=1"));
}

static void too_busy(void)
{
    open_stub(H200_VALID);
    stub->busy_launches = 1000000;
    CHECK_EQ(lithos_probe_open(&p), 0);
    CHECK_EQ(lithos_probe_topology(&p, &p.gpus[0]), -EBUSY);
    CHECK(strstr(p.gpus[0].error, "Try again"));
    CHECK(!p.gpus[0].have_topology);
}

static void check_no_hook(const char *why)
{
    CHECK_EQ(lithos_probe_open(&p), 0);
    CHECK_EQ(lithos_probe_topology(&p, &p.gpus[0]), 0);
    CHECK(!p.gpus[0].hook && !p.gpus[0].have_topology);
    if (!strstr(p.gpus[0].why, why))
        fprintf(stderr, "%s\n", p.gpus[0].why);
    CHECK(strstr(p.gpus[0].why, why));
    CHECK_EQ(lithos_probe_canary(&p.gpus[0]), 0); /* the card itself is well */
}

static void no_table(void)
{
    open_stub("0-31");
    stub->no_table = 1;
    check_no_hook("no QMD table");
}

static void unknown_layout(void)
{
    open_stub("0-31");
    stub->unknown_version = 1;
    check_no_hook("not known");
}

static void unknown_card(void)
{
    open_stub("0-31");
    stub->cc_major = 42;
    check_no_hook("42.0 are not known");
}

static void unproved_card(void)
{
    unsetenv("LITHOS_UNTESTED_GPU");
    open_stub("0-31");
    stub->cc_major = 8;
    check_no_hook("LITHOS_UNTESTED_GPU=1");
}

static void odd_params(void)
{
    open_stub("0-31");
    stub->params_bytes = 0x60;
    check_no_hook("passes 96 bytes");
}

static void no_driver(void)
{
    setenv("LITHOS_LIBCUDA", "/nonexistent", 1);
    CHECK_EQ(lithos_probe_open(&p), -ENODEV);
    CHECK(strstr(p.error, "/nonexistent"));
}

static void no_gpu(void)
{
    open_stub("0-31");
    stub->device_count = 0;
    CHECK_EQ(lithos_probe_open(&p), -ENODEV);
    CHECK(strstr(p.error, "no GPU"));
}

static void run_all(void **state)
{
    (void)state;
    static void (*const scenarios[])(void) = {finds_h200,    stamps,     no_stamps,      no_atoms,
                                              too_busy,      no_table,   unknown_layout, unknown_card,
                                              unproved_card, odd_params, no_driver,      no_gpu};
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (in_child(scenarios[i], NULL, 0) != 0)
            fail_msg("scenario %zu", i);
}

/* ---- /etc/ld.so.cache ---- */

/* ldconfig's own: the C library is in every cache. */
static void test_real_cache(void **state)
{
    (void)state;
    char *data, path[4096];
    size_t bytes;
    if (lithos_read_file("/etc/ld.so.cache", LITHOS_LDCACHE_MAX_BYTES, &data, &bytes) < 0)
        skip();
    assert_int_equal(lithos_ldcache_find(data, bytes, "libc.so.6", 0, path, sizeof path), 0);
    assert_int_equal(path[0], '/');
    assert_int_equal(access(path, R_OK), 0);
    assert_int_equal(lithos_ldcache_find(data, bytes, "libc.so.6", 0, path, 4), -ENAMETOOLONG);
    assert_int_equal(lithos_ldcache_find(data, bytes, "libnosuch.so.9", 0, path, sizeof path), -ENOENT);
    assert_int_equal(lithos_ldcache_find(data, 30, "libc.so.6", 0, path, sizeof path), -EBADMSG);
    assert_int_equal(lithos_ldcache_find(data, bytes / 2, "libc.so.6", 0, path, sizeof path), -EBADMSG);
    data[0] ^= 1;
    assert_int_equal(lithos_ldcache_find(data, bytes, "libc.so.6", 0, path, sizeof path), -EBADMSG);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_all),
        cmocka_unit_test(test_real_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
