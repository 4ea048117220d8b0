/* liblithos.so beside a daemon that the test plays: launches on fewer TPCs than the quota has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "stub/fake_daemon.h"

#define QUOTA "0-3,9-16,18-25"
#define FEW "9-12"
#define TRY "9-10"

/* Of launch(). */
static const uint32_t grid[3] = {8, 1, 1};
static const uint32_t block[3] = {32, 1, 1};

static struct lithos_tpcset set_of(const char *text)
{
    struct lithos_tpcset set;
    CHECK_EQ(lithos_tpcset_parse(text, &set), 0);
    return set;
}

/* Row of the kernel that launch() launches, behind one of so many blocks; 0: behind none. */
static void put_behind(const struct lithos_size *size, uint32_t blocks)
{
    const uint32_t before = blocks ? lithos_size_shape((uint32_t[3]){blocks, 1, 1}, block) : 0;
    lithos_size_put(fake.arena->sizes, lithos_size_key(0x20, grid, block, before), 2, size);
}

/* The same, whatever is launched before it here. */
static void put_row(const struct lithos_size *size)
{
    static const uint32_t blocks[] = {0, 8, 9};
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(blocks); i++)
        put_behind(size, blocks[i]);
}

static void say(const char *tpcs, const char *probe, uint32_t every)
{
    const struct lithos_size size = {.tpcs = set_of(tpcs),
                                     .probe = every ? set_of(probe) : (struct lithos_tpcset){{0, 0}},
                                     .probe_every = every};
    put_row(&size);
}

static void say_lease(uint64_t age_ns)
{
    atomic_store(&fake.arena->lease_ns, lithos_now_ns() - age_ns);
}

static void begin(void)
{
    daemon_starts(GOOD, QUOTA);
    tenant_starts();
    say_lease(0);
}

static void narrow(void)
{
    begin();
    say(FEW, NULL, 0);
    launch();
    CHECK(masked_with(QUOTA)); /* it is not on */
    atomic_store(&fake.arena->sizing, 1);
    launch();
    CHECK(masked_with(FEW));
    /* another grid, another block, another function */
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x20, 9, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
             0);
    CHECK(masked_with(QUOTA));
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x20, 8, 1, 1, 64, 1, 1, 0, NULL, NULL, NULL),
             0);
    CHECK(masked_with(QUOTA));
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x40, 8, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
             0);
    CHECK(masked_with(QUOTA));
    /* one whose blocks wait for each other */
    CHECK_EQ(((CUresult(*)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           CUstream, void **))OURS("cuLaunchCooperativeKernel"))((CUfunction)0x20, 8, 1, 1,
                                                                                 32, 1, 1, 0, NULL, NULL),
             0);
    CHECK(masked_with(QUOTA));
    launch();
    CHECK(masked_with(FEW));
    atomic_store(&fake.arena->sizing, 0);
    launch();
    CHECK(masked_with(QUOTA));
    daemon_dies();
}

/* What makes no sense, or no sense any more, is as if it had not been said. */
static void not_believed(void)
{
    begin();
    atomic_store(&fake.arena->sizing, 1);
    say("9-12,27", NULL, 0); /* 27 is somebody else's */
    launch();
    CHECK(masked_with(QUOTA));
    say("4", NULL, 0); /* no TPC of the card */
    launch();
    CHECK(masked_with(QUOTA));
    say(FEW, NULL, 0);
    struct lithos_grant grant = grant_of("9-11,18-25");
    grant.epoch++;
    lithos_arena_publish(fake.arena, &grant);
    launch();
    CHECK(masked_with("9-11,18-25"));
    say("9-11", NULL, 0);
    launch();
    CHECK(masked_with("9-11"));
    /* clusters of 4 blocks take 2 TPCs of a GPC, of 8 take 4 */
    stub->cluster[0] = 4;
    stub->cluster[1] = stub->cluster[2] = 1;
    say("9-11", NULL, 0);
    launch();
    CHECK(masked_with("9-11"));
    say("9,18", NULL, 0);
    launch();
    CHECK(masked_with("9-11,18-25"));
    stub->cluster[0] = 8;
    say("9-11", NULL, 0);
    launch();
    CHECK(masked_with("9-11,18-25"));
    daemon_dies();
}

/* lithosd is gone, or halted: its lease runs out. */
static void without_a_daemon(void)
{
    begin();
    atomic_store(&fake.arena->sizing, 1);
    say(FEW, NULL, 0);
    say_lease(LITHOS_LEASE_NS / 2);
    launch();
    CHECK(masked_with(FEW));
    say_lease(LITHOS_LEASE_NS + LITHOS_NSEC_PER_MSEC);
    launch();
    CHECK(masked_with(QUOTA));
    say_lease(0);
    launch();
    CHECK(masked_with(FEW));
    /* another daemon, another arena */
    daemon_dies();
    daemon_starts(GOOD, QUOTA);
    wait_for_attach();
    launch();
    CHECK(masked_with(QUOTA));
    daemon_dies();
}

static void tries(void)
{
    unsigned tried = 0, in_a_row = 0, most = 0;
    begin();
    atomic_store(&fake.arena->sizing, 1);
    say(FEW, TRY, 8);
    for (int i = 0; i < 800; i++) {
        launch();
        CHECK(masked_with(FEW) || masked_with(TRY));
        tried += (unsigned)masked_with(TRY);
        in_a_row = masked_with(TRY) ? in_a_row + 1 : 0;
        most = LITHOS_MAX(most, in_a_row);
    }
    CHECK(tried >= 95 && tried <= 105 && most == 1);
    say(QUOTA, TRY, 1);
    launch();
    CHECK(masked_with(TRY));
    daemon_dies();
}

static void say_least(uint32_t least_tpcs)
{
    const struct lithos_size size = {.tpcs = set_of(FEW), .least_tpcs = least_tpcs};
    put_row(&size);
}

/* While others have a part of the quota, launches that are known to bear it have all of the rest. */
static void kept(void)
{
    begin();
    atomic_store(&fake.arena->sizing, 1);
    say(FEW, TRY, 1);
    lithos_arena_keep(fake.arena, set_of("9-16"));
    launch();
    CHECK(masked_with("9-16"));
    /* one of which nothing is known; whose blocks have to be there at once */
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x20, 9, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
             0);
    CHECK(masked_with(QUOTA));
    say_least(9);
    launch();
    CHECK(masked_with(QUOTA));
    say_least(8);
    launch();
    CHECK(masked_with("9-16"));
    /* with no room for its clusters of 8 blocks, which take 4 TPCs of a GPC; what is not its own */
    stub->cluster[0] = 8;
    stub->cluster[1] = stub->cluster[2] = 1;
    say_least(0);
    lithos_arena_keep(fake.arena, set_of("2-3,9-11,18-20"));
    launch();
    CHECK(masked_with(QUOTA));
    lithos_arena_keep(fake.arena, set_of("9-12,18-20"));
    launch();
    CHECK(masked_with("9-12,18-20"));
    lithos_arena_keep(fake.arena, set_of("9-16,27"));
    launch();
    CHECK(masked_with(QUOTA));
    /* nobody looks after it; it is not on; it is over */
    lithos_arena_keep(fake.arena, set_of("9-16"));
    say_lease(LITHOS_LEASE_NS + LITHOS_NSEC_PER_MSEC);
    launch();
    CHECK(masked_with(QUOTA));
    say_lease(0);
    atomic_store(&fake.arena->sizing, 0);
    launch();
    CHECK(masked_with(QUOTA));
    atomic_store(&fake.arena->sizing, 1);
    lithos_arena_keep(fake.arena, (struct lithos_tpcset){{0, 0}});
    launch();
    CHECK(masked_with(FEW));
    daemon_dies();
}

static void launch_blocks(uint32_t blocks, uintptr_t stream)
{
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x20, blocks, 1, 1, 32, 1, 1, 0,
                                                 (CUstream)stream, NULL, NULL),
             0);
}

/* One function with one grid is another operator behind another launch of its stream. */
static void behind(void)
{
    const struct lithos_size size = {.tpcs = set_of(FEW)};
    fake.observe =
        LITHOS_OBSERVE_RECORDS | LITHOS_OBSERVE_BEFORE; /* nothing is known where no record says it */
    begin();
    atomic_store(&fake.arena->sizing, 1);
    put_behind(&size, 9);
    launch_blocks(8, 0x70);
    CHECK(masked_with(QUOTA));
    launch_blocks(9, 0x70);
    launch_blocks(8, 0x70);
    CHECK(masked_with(FEW));
    launch_blocks(8, 0x70);
    CHECK(masked_with(QUOTA));
    /* what goes to another stream in between does not count, nor what a mask was not asked for */
    launch_blocks(9, 0x70);
    launch_blocks(8, 0x74);
    CHECK(masked_with(QUOTA));
    launch_blocks(8, 0x70);
    CHECK(masked_with(FEW));
    atomic_store(&fake.arena->sizing, 0);
    launch_blocks(9, 0x74);
    atomic_store(&fake.arena->sizing, 1);
    launch_blocks(8, 0x74);
    CHECK(masked_with(FEW));
    daemon_dies();
}

static _Atomic int saying = 1, odd, few;

static void mask_seen(const struct lithos_tpcset *set, int masked)
{
    char text[LITHOS_TPCSET_TEXT_MAX];
    lithos_tpcset_format(set, text);
    odd += !masked || (strcmp(text, QUOTA) != 0 && strcmp(text, FEW) != 0 && strcmp(text, TRY) != 0);
    few += strcmp(text, QUOTA) != 0;
}

static void *say_on_and_on(void *unused)
{
    for (unsigned i = 0; atomic_load(&saying); i++)
        say(i & 1 ? FEW : TRY, NULL, 0);
    return unused;
}

static void *launch_on_and_on(void *unused)
{
    for (int i = 0; i < 2000; i++)
        launch();
    return unused;
}

/* Under many launching threads a row is seen whole or not at all. */
static void races(void)
{
    pthread_t speaker, threads[3];
    begin();
    atomic_store(&fake.arena->sizing, 1);
    say(FEW, NULL, 0);
    stub->on_mask = mask_seen;
    launch();
    CHECK(!pthread_create(&speaker, NULL, say_on_and_on, NULL));
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_create(&threads[i], NULL, launch_on_and_on, NULL));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&saying, 0);
    pthread_join(speaker, NULL);
    CHECK_EQ(odd, 0);
    CHECK(few > 0);
    daemon_dies();
}

#define IN_CHILD(name)                                \
    static void test_##name(void **state)             \
    {                                                 \
        (void)state;                                  \
        assert_int_equal(in_child(name, NULL, 0), 0); \
    }
IN_CHILD(narrow)
IN_CHILD(not_believed)
IN_CHILD(without_a_daemon)
IN_CHILD(tries)
IN_CHILD(kept)
IN_CHILD(behind)
IN_CHILD(races)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_not_believed),
        cmocka_unit_test(test_without_a_daemon),
        cmocka_unit_test(test_tries),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_behind),
        cmocka_unit_test(test_races),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
