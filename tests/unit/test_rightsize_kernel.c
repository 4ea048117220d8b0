/* daemon/rightsize_kernel.c: on how few TPCs all blocks of a kernel are there at once, and for which that does not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "unit/cards.h"

#define ALL 66u

static struct lithosd daemon_;
static struct lithosd_observed observed;
static struct lithosd_handles handles;

/* A tenant that has all of an H200. */
static struct lithosd_tenant *tenant(void)
{
    struct lithosd_tenant *t = &daemon_.tenants[0];
    daemon_.gpus.gpu[0].cc[0] = 9;
    daemon_.gpus.gpu[0].sm_count = 132;
    t->daemon = &daemon_;
    t->grant.gpu_count = 1;
    t->grant.gpus[0].topology = card_h200();
    t->observed = &observed;
    return t;
}

/* As it is known once its name has come. */
static uint64_t function_named(const char *name)
{
    static uint64_t handle;
    const size_t total = strlen(name);
    handle++;
    for (size_t at = 0; at < total; at += sizeof((struct lithos_record *)0)->name.text) {
        struct lithos_record r = {.kind = LITHOS_RECORD_NAME, .function = handle};
        r.name.offset = (uint16_t)at;
        r.name.total = (uint16_t)total;
        memcpy(r.name.text, name + at, LITHOS_MIN(total - at, sizeof r.name.text));
        lithosd_names_piece(&observed.names, &handles, &r);
    }
    return lithosd_names_function(&handles, handle);
}

/* registers 128, blocks of 128 threads: 4 blocks an SM. */
static uint32_t least_of(uint64_t function, uint32_t blocks, uint32_t cluster, uint32_t registers)
{
    struct lithosd_size row = {0};
    struct lithos_rightsize_kernel k;
    const struct lithos_timeline_launch l = {.function = function,
                                             .grid = {blocks, 1, 1},
                                             .block = {128, 1, 1},
                                             .cluster_blocks = cluster,
                                             .registers = (uint16_t)registers};
    lithosd_rightsize_shape(tenant(), &l, ALL, &row, &k);
    assert_int_equal(k.blocks, blocks);
    assert_int_equal(k.cluster_blocks, cluster);
    return k.least_tpcs;
}

static void blocks_that_may_wait_have_a_place_each(void **state)
{
    const uint64_t f = function_named("barrier_by_hand");
    (void)state;
    /* at most a block an SM: 4 of them fit on each */
    assert_int_equal(least_of(f, 132, 1, 128), 17);
    assert_int_equal(least_of(f, 8, 1, 128), 1);
    assert_int_equal(least_of(f, 9, 1, 128), 2);
    /* of 255 registers 2 fit */
    assert_int_equal(least_of(f, 132, 1, 255), 33);
    /* as many as fit on the whole card: all of it, and of half as many half */
    assert_int_equal(least_of(f, 4 * 132, 1, 128), ALL);
    assert_int_equal(least_of(f, 2 * 132, 1, 128), ALL / 2);
    /* not a size made for the card, and waves: no block can count on another */
    assert_int_equal(least_of(f, 133, 1, 128), 0);
    assert_int_equal(least_of(f, 8 * 132, 1, 128), 0);
    /* clusters lie beside each other, and how many fit is not known: an SM for each block */
    assert_int_equal(least_of(f, 128, 2, 128), 64);
    assert_int_equal(least_of(f, 4 * 132, 2, 128), 0);
}

static void some_families_are_known_not_to_wait(void **state)
{
    (void)state;
    assert_int_equal(least_of(function_named("nvjet_sm90_tst_64x8_64x16_2x1_v_bz_splitK_TNT"), 128, 2, 128),
                     0);
    assert_int_equal(
        least_of(function_named("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma"), 132, 1, 255), 0);
    assert_true(lithosd_rightsize_is_independent(
        "_ZN7cutlass7Kernel2I51cutlass_80_tensorop_s1688gemm_64x128_32x3_nn_align4EEvNT_6ParamsE"));
    assert_true(lithosd_rightsize_is_independent(
        "sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x64x32"));
    assert_true(lithosd_rightsize_is_independent("_ZN2at6native29vectorized_elementwise_kernelILi4E"));
    assert_false(lithosd_rightsize_is_independent("_ZN7cutlass7Kernel2I_gemm_StreamK_EEvNT_6ParamsE"));
    assert_false(lithosd_rightsize_is_independent("nvjet_sm90_tst_streamK"));
    assert_false(lithosd_rightsize_is_independent("_ZN5cudnn22bn_fw_inf_semiPersistNHWC"));
    assert_false(lithosd_rightsize_is_independent("my_nvjet_kernel"));
    assert_false(lithosd_rightsize_is_independent(""));
}

/* Its name is looked for again until it is known, and then no more until another function stands in the row. */
static void a_name_counts_once_it_has_come(void **state)
{
    struct lithosd_size row = {0};
    struct lithos_rightsize_kernel k;
    struct lithos_timeline_launch l = {
        .function = 77, .grid = {132, 1, 1}, .block = {384, 1, 1}, .registers = 168};
    (void)state;
    lithosd_rightsize_shape(tenant(), &l, ALL, &row, &k);
    assert_int_equal(k.least_tpcs, ALL);
    assert_int_equal(row.judged, 0);
    l.function = function_named("nvjet_sm90_tst_128x128_64x6_2x1_v_bz_TNT");
    lithosd_rightsize_shape(tenant(), &l, ALL, &row, &k);
    assert_int_equal(k.least_tpcs, 0);
    assert_int_equal(row.judged, l.function);
    l.function = function_named("somebody_elses");
    lithosd_rightsize_shape(tenant(), &l, ALL, &row, &k);
    assert_int_equal(k.least_tpcs, ALL);
}

static int finish(void **state)
{
    (void)state;
    lithosd_names_finish(&observed.names);
    lithosd_handles_finish(&handles);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_that_may_wait_have_a_place_each),
        cmocka_unit_test(some_families_are_known_not_to_wait),
        cmocka_unit_test(a_name_counts_once_it_has_come),
    };
    return cmocka_run_group_tests(tests, NULL, finish);
}
