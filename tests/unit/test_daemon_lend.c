/* lithosd, the real program, and two tenants whose rings the test fills: what it makes of launches, ends and queues. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "hw/tpcgrant.h"
#include "test_daemon_rig.h"

#define PATIENCE_NS (10 * LITHOS_NSEC_PER_SEC)

/* A tenant whose process is this one. */
struct player {
    struct rig_tenant tenant;
    int sock;
    struct lithos_arena *arena;
    uint64_t sequence;
    struct lithos_tpcset own;
};

static struct player play(struct rig *rig, const char *name, const char *quota, uint32_t class)
{
    struct player p = {0};
    union lithos_message m;
    rig_admit_message(&m, name, quota);
    m.admit.class = class;
    p.tenant = rig_tenant(rig, &m, RIG_WAIT);
    p.sock = rig_connect(rig);
    p.arena = rig_attach(&p.tenant, p.sock);
    p.own = p.tenant.answer.admitted.grant.gpus[0].own;
    return p;
}

/* By its grant as it is now. */
static struct lithos_tpcset refuge_of(const struct player *p)
{
    struct lithos_grant g;
    uint32_t seq;
    assert_int_equal(lithos_arena_read_grant(p->arena, &g, &seq), 0);
    return g.gpus[0].own;
}

static void leave(struct player *p)
{
    munmap(p->arena, LITHOS_ARENA_BYTES);
    close(p->sock);
}

/* A kernel on all that it owns. */
static void launch(struct player *p, bool stamped)
{
    struct lithos_record r = {.sequence = ++p->sequence,
                              .submit_ns = lithos_now_ns(),
                              .function = 7,
                              .kind = LITHOS_RECORD_LAUNCH,
                              .flags = stamped ? 0 : LITHOS_RECORD_NO_STAMP_FULL,
                              .cluster = 1,
                              .launch = {.grid = {1000, 1, 1}, .block = {128, 1, 1}, .tpcs = p->own}};
    r.launch.stamp = stamped ? p->sequence : 0;
    uint32_t tail = atomic_load(&p->arena->record_tails[0]);
    assert_true(lithos_record_put(&p->arena->records, 0, &p->arena->record_tails[0], &r));
    for (uint64_t begin_ns = lithos_now_ns(); atomic_load(&p->arena->record_tails[0]) == tail; usleep(20))
        assert_true(lithos_now_ns() - begin_ns <
                    PATIENCE_NS); /* until it is read: it sleeps for 20 ms at most */
}

/* It ends. */
static void stamp(struct player *p)
{
    struct lithos_stamp *s = &p->arena->stamps[p->sequence % LITHOS_STAMP_SLOTS];
    atomic_store(&s->time_ns, lithos_now_ns());
    atomic_store(&s->payload, p->sequence);
}

static struct lithos_rule rule_of(const struct player *p)
{
    struct lithos_rule r = {0};
    uint32_t seq;
    /* lithosd may be waiting for a processor in the middle of writing it */
    for (uint64_t begin_ns = lithos_now_ns(); lithos_arena_read_rule(p->arena, 0, &r, &seq) == -EAGAIN;
         usleep(20))
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    return r;
}

static bool lends(const struct player *from, const struct player *to)
{
    struct lithos_rule r = rule_of(to);
    struct lithos_tpcset both = lithos_tpcset_or(r.lent, r.spare);
    both = lithos_tpcset_and(both, from->own);
    return !lithos_tpcset_empty(&both);
}

static uint64_t until_lends(const struct player *from, const struct player *to, bool lent)
{
    uint64_t begin_ns = lithos_now_ns();
    while (lends(from, to) != lent) {
        if (lithos_now_ns() - begin_ns > PATIENCE_NS)
            fail_msg("%s lent", lent ? "not" : "still");
        usleep(20);
    }
    return lithos_now_ns() - begin_ns;
}

static void an_owner_comes_and_goes(void **state)
{
    struct rig *rig = *state;
    struct player owner = play(rig, "owner", "50%", LITHOS_CLASS_HIGH);
    struct player be = play(rig, "be", "10%", LITHOS_CLASS_BEST_EFFORT);
    assert_int_equal(rule_of(&owner).flags, 0); /* high-priority tenants have no queue to rule */
    assert_false(lends(&owner, &be));           /* it asks for nothing */
    atomic_store(&be.arena->queue_depth, 3);
    until_lends(&owner, &be, true);
    struct lithos_rule r = rule_of(&be);
    struct lithos_tpcset foreign = lithos_tpcset_and(lithos_tpcset_or(r.lent, r.spare), be.own);
    assert_true(lithos_tpcset_empty(&foreign) && !lithos_tpcset_empty(&r.spare));
    assert_true(r.flags & LITHOS_RULE_STRICT);
    for (uint64_t begin_ns = lithos_now_ns(); rule_of(&be).until_ns <= lithos_now_ns(); usleep(20))
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS); /* it is renewed */

    launch(&owner, true);
    until_lends(&owner, &be, false);
    r = rule_of(&be);
    assert_false(lithos_tpcset_empty(&r.spare)); /* what nobody owns stays */
    usleep(20000);
    assert_false(lends(&owner, &be)); /* as long as it has not ended */
    stamp(&owner);
    until_lends(&owner, &be, true);

    launch(&owner, false); /* nobody will tell of its end */
    until_lends(&owner, &be, false);
    until_lends(&owner, &be, true);

    /* a call that launches a graph says so when it begins: others are off the TPCs before it returns */
    atomic_fetch_add(&owner.arena->graphs_begun, 1);
    until_lends(&owner, &be, false);
    usleep(20000);
    assert_false(lends(&owner, &be));
    atomic_fetch_add(&owner.arena->graphs_given, 1);
    until_lends(&owner, &be, true);
    /* a thread that ends in the middle of it does not keep them for ever */
    atomic_fetch_add(&owner.arena->graphs_begun, 1);
    until_lends(&owner, &be, false);
    until_lends(&owner, &be, true);

    /* one of its processes has no hook: what it launches is not seen */
    union lithos_message m;
    int sock = rig_connect(rig), fd = -1;
    lithos_message_init(&m, LITHOS_MSG_ATTACH);
    m.attach.tenant = owner.tenant.answer.admitted.tenant;
    memcpy(m.attach.token, owner.tenant.answer.admitted.token, LITHOS_TOKEN_BYTES);
    assert_int_equal(lithos_socket_call(sock, &m, &m, &fd, LITHOS_NSEC_PER_SEC), 0);
    assert_int_equal(m.h.type, LITHOS_MSG_ATTACHED);
    until_lends(&owner, &be, false);
    close(fd);
    close(sock);
    leave(&owner);
    leave(&be);
}

static void no_quota_and_nothing_idle(void **state)
{
    struct rig *rig = *state;
    struct player z = play(rig, "zero", "0", LITHOS_CLASS_BEST_EFFORT);
    const unsigned card = lithos_tpcset_count(&z.own); /* its refuge, in its grant: what nobody owns */
    assert_true(card > 1);
    struct player owner = play(rig, "owner", "100%", LITHOS_CLASS_HIGH);
    assert_int_equal(lithos_tpcset_count(&owner.own), card);
    z.own = refuge_of(&z);
    assert_int_equal(lithos_tpcset_count(&z.own), 1);
    launch(&owner, true);
    atomic_store(&z.arena->queue_why, LITHOS_PICK_HELD);
    atomic_store(&z.arena->queue_depth, 1);
    uint64_t begin_ns = lithos_now_ns();
    struct lithos_rule r = rule_of(&z);
    for (int i = 0; i < 100 && !(r.flags & LITHOS_RULE_HOLD); i++, r = rule_of(&z))
        usleep(1000);
    assert_int_equal(r.flags, LITHOS_RULE_ON | LITHOS_RULE_INSTEAD | LITHOS_RULE_STRICT | LITHOS_RULE_HOLD);
    /* it has waited for long enough: one launch, on one TPC, whatever its owner does */
    until_lends(&owner, &z, true);
    uint64_t waited_ns = lithos_now_ns() - begin_ns;
    if (waited_ns < 50 * LITHOS_NSEC_PER_MSEC)
        fail_msg("lent after %llu us, with flags %u, until %lld us from now",
                 (unsigned long long)waited_ns / 1000, rule_of(&z).flags,
                 (long long)(rule_of(&z).until_ns - lithos_now_ns()) / 1000);
    r = rule_of(&z);
    assert_int_equal(lithos_tpcset_count(&r.spare), 1);
    assert_int_equal(r.flags, LITHOS_RULE_ON | LITHOS_RULE_INSTEAD | LITHOS_RULE_STRICT);
    launch(&z, true);
    until_lends(&owner, &z, false);
    assert_true(rule_of(&z).flags & LITHOS_RULE_HOLD);
    leave(&owner);
    leave(&z);
}

/* Processor time of lithosd until now. */
static uint64_t cpu_ns(const struct rig *rig)
{
    clockid_t clock;
    struct timespec t;
    assert_int_equal(clock_getcpuclockid(rig->daemon, &clock), 0);
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * LITHOS_NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* While somebody borrows it looks without a pause, and answers all the same; then it sleeps again. */
static void spins_and_sleeps(void **state)
{
    struct rig *rig = *state;
    struct player owner = play(rig, "owner", "50%", LITHOS_CLASS_HIGH);
    struct player be = play(rig, "be", "10%", LITHOS_CLASS_BEST_EFFORT);
    json_int_t seen = 0;
    for (int i = 0; i < 3; i++) {
        atomic_store(&be.arena->queue_depth, 3);
        until_lends(&owner, &be, true);
        uint64_t begin_ns = lithos_now_ns();
        for (int n = 0; n < 20; n++) {
            launch(&owner, true);
            until_lends(&owner, &be, false);
            stamp(&owner);
            until_lends(&owner, &be, true);
        }
        json_t *status = rig_status(rig);
        const json_t *scheduler = json_object_get(status, "scheduler");
        assert_true(json_is_true(json_object_get(scheduler, "spins")));
        /* several may come at one look of a busy machine's */
        json_int_t reactions =
            json_integer_value(json_object_get(json_object_get(scheduler, "reaction"), "count"));
        assert_true(reactions > seen);
        seen = reactions;
        json_decref(status);
        uint64_t used_ns = cpu_ns(rig), busy_ns = 50 * LITHOS_NSEC_PER_MSEC;
        while (cpu_ns(rig) - used_ns < busy_ns) { /* it does not sleep, whatever else the machine does */
            assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
            usleep(1000);
        }
        atomic_store(&be.arena->queue_depth, 0);
        usleep(100000);
        used_ns = cpu_ns(rig);
        usleep(300000);
        assert_true(cpu_ns(rig) - used_ns < 60 * LITHOS_NSEC_PER_MSEC);
    }
    leave(&owner);
    leave(&be);
}

static int setup_with(void **state, const char *option)
{
    static struct rig rig;
    const char *const options[] = {"--mps=off", option, NULL};
    rig_init(&rig, rig_stamps);
    rig_start(&rig, options);
    *state = &rig;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, "--spin=off");
}

static int setup_spinning(void **state)
{
    return setup_with(state, "--spin=on");
}

static int teardown(void **state)
{
    rig_finish(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_owner_comes_and_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(an_owner_comes_and_goes, setup_spinning, teardown),
        cmocka_unit_test_setup_teardown(no_quota_and_nothing_idle, setup, teardown),
        cmocka_unit_test_setup_teardown(spins_and_sleeps, setup_spinning, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
