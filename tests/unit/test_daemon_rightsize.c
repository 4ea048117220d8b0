/* lithosd, the real program, and a process that the test plays: it launches on as few TPCs as the size table says, and the
 * kernels take what they would. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "test_daemon_rig.h"

#define QUOTA 26u
#define PATIENCE_NS (20 * LITHOS_NSEC_PER_SEC)

/* A service of one thread, each of whose requests is a launch of each kernel. */
struct service {
    struct lithos_arena *arena;
    struct lithos_tpcset own;
    uint64_t sequence, stamp, clock_ns; /* the end of what was launched last */
    bool sloth;                         /* narrow kernels make requests slow in a way that they do not show */
    uint64_t wide, narrow;              /* launches */
    uint32_t tpcs[3];                   /* of the last one of each kernel */
};

struct kernel {
    uint64_t function;
    uint32_t blocks;
    double m_ns, b_ns;
};

/* One that fills 4 TPCs, whatever it has more; one that takes 100 us on 26 TPCs and 110 on 10; and one that takes no longer on any, but
 * of whose blocks there are as many as 26 TPCs hold of another size: they may wait for each other. */
static const struct kernel kernels[3] = {
    {0x100, 8, 0, 60e3}, {0x200, 100000, 162.5e3, 93.75e3}, {0x300, 4 * 2 * QUOTA, 0, 40e3}};

static const uint32_t block[3] = {128, 1, 1};

static struct lithos_tpcset where(struct service *s, const uint32_t grid[3], uint64_t function)
{
    static uint64_t tries;
    struct lithos_size size;
    if (!atomic_load(&s->arena->sizing) ||
        !lithos_size_get(s->arena->sizes, lithos_size_key(function, grid, block), &size))
        return s->own;
    return size.probe_every && ++tries % size.probe_every == 0 ? size.probe : size.tpcs;
}

static void put(struct service *s, struct lithos_record *r)
{
    r->sequence = ++s->sequence;
    r->cluster = 1;
    assert_true(lithos_record_put(&s->arena->records, 0, &s->arena->record_tails[0], r));
}

/* Launched, run and stamped. */
static void launch(struct service *s, unsigned i, uint64_t *ret_narrow)
{
    const struct kernel *k = &kernels[i];
    struct lithos_record r = {
        .kind = LITHOS_RECORD_LAUNCH,
        .submit_ns = lithos_now_ns(),
        .function = k->function,
        .registers = 32,
        .launch = {.stamp = ++s->stamp, .grid = {k->blocks, 1, 1}, .block = {block[0], block[1], block[2]}}};
    r.launch.tpcs = where(s, r.launch.grid, k->function);
    const struct lithos_tpcset outside = lithos_tpcset_minus(r.launch.tpcs, s->own);
    const uint32_t tpcs = lithos_tpcset_count(&r.launch.tpcs);
    assert_true(tpcs && lithos_tpcset_empty(&outside));
    s->tpcs[i] = tpcs;
    assert_true(k->function != 0x300 || tpcs == QUOTA);
    *ret_narrow += tpcs < QUOTA;
    s->narrow += tpcs < QUOTA;
    s->wide += tpcs == QUOTA;
    put(s, &r);
    s->clock_ns = LITHOS_MAX(s->clock_ns, r.submit_ns) + (uint64_t)(k->m_ns / tpcs + k->b_ns);
    while (lithos_now_ns() < s->clock_ns)
        ;
    struct lithos_stamp *stamp = &s->arena->stamps[s->stamp % LITHOS_STAMP_SLOTS];
    atomic_store(&stamp->time_ns, s->clock_ns);
    atomic_store(&stamp->payload, s->stamp);
}

static void request(struct service *s)
{
    uint64_t narrow = 0;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(kernels); i++)
        launch(s, i, &narrow);
    struct lithos_record r = {
        .kind = LITHOS_RECORD_SYNC, .flags = LITHOS_RECORD_ENDED, .submit_ns = lithos_now_ns()};
    if (s->sloth && narrow) /* a part of a millisecond more */
        r.launch.call_ns = 700000;
    put(s, &r);
    s->clock_ns = lithos_now_ns() + r.launch.call_ns;
    while (lithos_now_ns() < s->clock_ns)
        usleep(20);
    /* Seen in time by whoever has few processors. */
    for (uint64_t begin_ns = lithos_now_ns();
         atomic_load(&s->arena->record_tails[0]) != atomic_load(&s->arena->records.ring[0].head);) {
        usleep(20);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
}

static json_t *rightsize_of(const struct rig *rig, json_t **ret_status)
{
    *ret_status = rig_status(rig);
    return json_object_get(rig_find_tenant(*ret_status, "service"), "rightsize");
}

static double number_of(const struct rig *rig, const char *key)
{
    json_t *status, *r = rightsize_of(rig, &status);
    const double v = json_number_value(json_object_get(r, key));
    json_decref(status);
    return v;
}

static struct rig_tenant service_starts(struct rig *rig, uint32_t slip_ppm, struct service *s, int *ret_sock)
{
    union lithos_message m;
    rig_admit_message(&m, "service", "26");
    m.admit.share = (struct lithos_share){.given = slip_ppm ? LITHOS_SHARE_SLIP : 0, .slip_ppm = slip_ppm};
    struct rig_tenant t = rig_tenant(rig, &m, RIG_WAIT);
    *ret_sock = rig_connect(rig);
    *s = (struct service){.arena = rig_attach(&t, *ret_sock)};
    s->own = t.answer.admitted.grant.gpus[0].own;
    return t;
}

static void set_slip(const struct rig *rig, uint32_t slip_ppm)
{
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_SET);
    strcpy(m.set.name, "service");
    m.set.what = LITHOS_SET_SHARE;
    m.set.share = (struct lithos_share){.given = LITHOS_SHARE_SLIP, .slip_ppm = slip_ppm};
    rig_call(rig, &m, &m);
    assert_int_equal(m.h.type, LITHOS_MSG_OK);
}

/* Serve until both kernels have been on so few TPCs for some requests on end. */
static void until_narrow(struct service *s)
{
    unsigned good = 0;
    for (uint64_t begin_ns = lithos_now_ns(); good < 5;) {
        request(s);
        good = s->tpcs[0] == 4 && s->tpcs[1] < 20 ? good + 1 : 0;
        if (lithos_now_ns() - begin_ns > PATIENCE_NS)
            fail_msg("kernels ran on %u and %u TPCs", s->tpcs[0], s->tpcs[1]);
    }
}

static void kernels_run_on_few_tpcs(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    json_t *status;
    service_starts(rig, 1200000, &s, &sock);
    until_narrow(&s);
    json_t *r = rightsize_of(rig, &status);
    assert_true(json_is_true(json_object_get(r, "on")));
    assert_true(json_number_value(json_object_get(r, "tpc_time_saved_percent")) > 0);
    assert_true(json_number_value(json_object_get(r, "slower_percent")) < 20);
    assert_true(json_integer_value(json_object_get(r, "references")) > 0);
    assert_int_equal(json_array_size(json_object_get(r, "operators")), 3);
    json_decref(status);
    /* off, and on again */
    set_slip(rig, 0);
    assert_int_equal(atomic_load(&s.arena->sizing), 0);
    for (int i = 0; i < 20; i++)
        request(&s);
    assert_true(s.tpcs[0] == QUOTA && s.tpcs[1] == QUOTA);
    r = rightsize_of(rig, &status);
    assert_true(json_is_false(json_object_get(r, "on")));
    json_decref(status);
    set_slip(rig, 1200000);
    until_narrow(&s);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static void requests_that_suffer_end_it(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    uint64_t begin_ns = lithos_now_ns();
    service_starts(rig, 1200000, &s, &sock);
    s.sloth = true;
    do {
        for (int i = 0; i < 50; i++)
            request(&s);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    } while (number_of(rig, "stopped") < 1);
    assert_true(number_of(rig, "undone") >= 2);
    /* for two seconds at least all launches have all TPCs */
    for (int i = 0; i < 5; i++)
        request(&s);
    s.narrow = 0;
    for (int i = 0; i < 20; i++)
        request(&s);
    assert_int_equal(s.narrow, 0);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static void only_who_asked(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    json_t *status;
    service_starts(rig, 0, &s, &sock);
    for (int i = 0; i < 200; i++)
        request(&s);
    assert_int_equal(s.narrow, 0);
    json_t *r = rightsize_of(rig, &status);
    assert_true(json_is_false(json_object_get(r, "on")));
    assert_non_null(strstr(json_string_value(json_object_get(r, "why")), "slip"));
    json_decref(status);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static int setup(void **state)
{
    static struct rig rig;
    static const char *const options[] = {"--mps=off", "--rightsize=on", NULL};
    rig_init(&rig, rig_stamps);
    rig_start(&rig, options);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    rig_finish(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kernels_run_on_few_tpcs, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_that_suffer_end_it, setup, teardown),
        cmocka_unit_test_setup_teardown(only_who_asked, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
