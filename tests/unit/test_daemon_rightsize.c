/* lithosd, the real program, and a process that the test plays: it launches on as few TPCs as the size table says, and the
 * kernels take what they would. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "test_daemon_rig.h"

#define QUOTA 26u
#define HOLDS 16u /* blocks of 128 threads with 32 registers on an SM */
#define SLOTH_NS 700000u
#define PATIENCE_NS (180 * LITHOS_NSEC_PER_SEC)
/* That takes less than a millisecond, of a machine that has one for it. */
#define TAKEN_BACK_NS (20 * LITHOS_NSEC_PER_SEC)

/* A service of one thread, each of whose requests is a launch of each kernel. */
struct service {
    struct lithos_arena *arena;
    struct lithos_tpcset own;
    uint64_t sequence, stamp, clock_ns; /* the end of what was launched last */
    unsigned kernels, rounds;           /* a request is the first so many of them, so often */
    uint32_t sloth_ns;                  /* narrow kernels make requests slow in a way that they do not show */
    bool hasty;                         /* it does not wait until its requests have been read */
    uint64_t wide, narrow;              /* launches */
    uint32_t before;                    /* shape of the last launch, unless it is not said */
    bool two_kinds, says_before; /* a request is two_kinds_of_work; its records say what they are behind */
    uint32_t tpcs[5];            /* of the last one of each kernel */
};

struct kernel {
    uint64_t function;
    uint32_t blocks;
    double m_ns, b_ns;
};

/* One that fills 4 TPCs, whatever it has more, and takes twice as long on fewer; one that takes 100 us on 26 TPCs and 110 on 10; and one that takes no longer on any, but
 * of whose blocks there are as many as 26 TPCs hold: they may wait for each other. The others are for requests of two kinds of work. */
#define FILLS_4 8u
static const struct kernel kernels[5] = {{0x100, FILLS_4, 0, 60e3},
                                         {0x200, 100000, 162.5e3, 93.75e3},
                                         {0x300, HOLDS * 2 * QUOTA, 0, 40e3},
                                         {0x400, FILLS_4, 0, 50e3},
                                         {0x400, FILLS_4, 0, 150e3}};
#define KERNELS 3u
/* The last two are one function with one grid, behind another each. */
static const unsigned two_kinds_of_work[4] = {0, 3, 1, 4};

static const uint32_t block[3] = {128, 1, 1};

static struct lithos_tpcset where(struct service *s, const uint32_t grid[3], uint64_t function)
{
    static uint64_t tries;
    struct lithos_size size;
    if (!atomic_load(&s->arena->sizing) ||
        !lithos_size_get(s->arena->sizes, lithos_size_key(function, grid, block, s->before), &size))
        return s->own;
    const struct lithos_tpcset kept = lithos_arena_kept(s->arena);
    if (!lithos_tpcset_empty(&kept))
        return size.least_tpcs <= lithos_tpcset_count(&kept) ? kept : s->own;
    return size.probe_every && ++tries % size.probe_every == 0 ? size.probe : size.tpcs;
}

static void put(struct service *s, struct lithos_record *r)
{
    r->sequence = ++s->sequence;
    r->cluster = 1;
    if (r->kind == LITHOS_RECORD_LAUNCH && s->says_before) {
        r->launch.before = s->before;
        s->before = lithos_size_shape(r->launch.grid, r->launch.block);
    }
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
    const double waves = k->blocks == FILLS_4 && tpcs < 4 ? 2 : 1;
    s->clock_ns = LITHOS_MAX(s->clock_ns, r.submit_ns) + (uint64_t)(waves * (k->m_ns / tpcs + k->b_ns));
    while (lithos_now_ns() < s->clock_ns)
        ;
    struct lithos_stamp *stamp = &s->arena->stamps[s->stamp % LITHOS_STAMP_SLOTS];
    atomic_store(&stamp->time_ns, s->clock_ns);
    atomic_store(&stamp->payload, s->stamp);
}

/* Until what it has put is read: seen in time by whoever has few processors. */
static void until_read(const struct lithos_arena *a)
{
    for (uint64_t begin_ns = lithos_now_ns();
         atomic_load(&a->record_tails[0]) != atomic_load(&a->records.ring[0].head);) {
        usleep(20);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
}

static void request(struct service *s)
{
    uint64_t narrow = 0;
    for (unsigned i = 0; i < s->kernels * s->rounds; i++)
        launch(s, s->two_kinds ? two_kinds_of_work[i % s->kernels] : i % s->kernels, &narrow);
    struct lithos_record r = {
        .kind = LITHOS_RECORD_SYNC, .flags = LITHOS_RECORD_ENDED, .submit_ns = lithos_now_ns()};
    if (narrow)
        r.launch.call_ns = s->sloth_ns;
    put(s, &r);
    s->clock_ns = lithos_now_ns() + r.launch.call_ns;
    while (lithos_now_ns() < s->clock_ns)
        usleep(20);
    if (!s->hasty)
        until_read(s->arena);
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
    *s = (struct service){.arena = rig_attach(&t, *ret_sock), .kernels = KERNELS, .rounds = 1};
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
    s.narrow = 0;
    for (int i = 0; i < 10; i++)
        request(&s);
    assert_true(s.narrow > 0); /* what was known is */
    until_narrow(&s);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static bool is_mixed(const struct rig *rig)
{
    json_t *status, *r = rightsize_of(rig, &status), *op;
    size_t i;
    bool mixed = false;
    json_array_foreach(json_object_get(r, "operators"), i, op) mixed =
        mixed || strcmp(json_string_value(json_object_get(op, "why")), "mixed") == 0;
    json_decref(status);
    return mixed;
}

/* One function with one grid does different work behind different kernels: it is told apart by them, where they are said. */
static void what_comes_before_tells(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    service_starts(rig, 1200000, &s, &sock);
    s.kernels = LITHOS_ARRAY_SIZE(two_kinds_of_work);
    s.two_kinds = true;
    for (uint64_t begin_ns = lithos_now_ns(); !is_mixed(rig);) {
        for (int i = 0; i < 10; i++)
            request(&s);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
    request(&s);
    assert_true(s.tpcs[3] == QUOTA && s.tpcs[4] == QUOTA);
    s.says_before = true;
    unsigned good = 0;
    for (uint64_t begin_ns = lithos_now_ns(); good < 5;) {
        request(&s);
        good = s.tpcs[3] == 4 && s.tpcs[4] == 4 ? good + 1 : 0;
        if (lithos_now_ns() - begin_ns > PATIENCE_NS)
            fail_msg("the two ran on %u and %u TPCs", s.tpcs[3], s.tpcs[4]);
    }
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
    s.sloth_ns = SLOTH_NS;
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

static double slip_in_force(const struct rig *rig)
{
    return number_of(rig, "slip_in_force");
}

/* What its requests have suffered is not forgotten by switching its slip off and on, but with another one it begins anew. */
static void the_same_slip_goes_on(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    service_starts(rig, 1200000, &s, &sock);
    s.sloth_ns = SLOTH_NS;
    for (uint64_t begin_ns = lithos_now_ns(); number_of(rig, "stopped") < 1;) {
        for (int i = 0; i < 10; i++)
            request(&s);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
    const uint64_t stopped_ns = lithos_now_ns();
    const double in_force = slip_in_force(rig), requests = number_of(rig, "requests");
    assert_true(in_force > 1 && in_force < 1.1);
    set_slip(rig, 0);
    for (int i = 0; i < 20; i++)
        request(&s);
    set_slip(rig, 1200000);
    for (int i = 0; i < 5; i++)
        request(&s);
    s.narrow = 0;
    for (int i = 0; i < 100; i++)
        request(&s);
    if (lithos_now_ns() - stopped_ns < 2 * LITHOS_NSEC_PER_SEC) /* it is stopped for so long */
        assert_int_equal(s.narrow, 0);
    assert_true(slip_in_force(rig) == in_force);
    assert_true(number_of(rig, "stopped") == 1);
    assert_in_range((uint64_t)(number_of(rig, "requests") - requests), 90, 106);
    set_slip(rig, 1300000);
    assert_true(slip_in_force(rig) == 1.3);
    s.sloth_ns = 0;
    s.narrow = 0;
    for (uint64_t begin_ns = lithos_now_ns(); s.narrow < 20; request(&s))
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

/* Two requests by turns, of 2 launches and of 80. */
static void turns(struct service *s, unsigned n, uint32_t short_sloth_ns, uint32_t long_sloth_ns)
{
    s->kernels = 2;
    for (unsigned i = 0; i < n; i++) {
        s->rounds = 1;
        s->sloth_ns = short_sloth_ns;
        request(s);
        s->rounds = 40;
        s->sloth_ns = long_sloth_ns;
        request(s);
    }
}

/* Of requests only those of about as many launches are compared with each other, and what is little of the time does not count. */
static void requests_of_two_kinds(void **state)
{
    struct rig *rig = *state;
    struct service s;
    int sock;
    json_t *status;
    service_starts(rig, 1200000, &s, &sock);
    turns(&s, 200, 0, 0);
    s.hasty = true; /* what they are to be is known to them when they have begun, as on a card */
    turns(&s, 200, 0, 0);
    turns(&s, 200, 100000, 0); /* those of 0.16 ms take 0.26 */
    const double references = number_of(rig, "references"), requests = number_of(rig, "requests");
    const double spoilt = number_of(rig, "spoilt");
    print_message("%.0f of %.0f requests are references, %.0f spoilt; %lu of %lu launches narrow\n",
                  references, requests, spoilt, (unsigned long)s.narrow, (unsigned long)(s.narrow + s.wide));
    assert_true(number_of(rig, "undone") == 0);
    /* On a busy machine the daemon tells of a reference when the next request has begun, and that one is spoilt and done again. */
    assert_true(references > 20 && references < requests / 4 + spoilt);
    assert_true(s.narrow > 2000); /* of 49200: how soon operators are learnt is the machine's */
    for (uint64_t begin_ns = lithos_now_ns(); number_of(rig, "undone") < 1;) {
        turns(&s, 10, 0, 4 * SLOTH_NS); /* those of 6.4 ms take 9 */
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
    json_t *r = rightsize_of(rig, &status);
    r = json_object_get(r, "last_undone");
    assert_in_range(json_integer_value(json_object_get(r, "launches")), 79, 81);
    assert_true(json_number_value(json_object_get(r, "median_us")) > 4000);
    assert_true(json_number_value(json_object_get(r, "reference_us")) > 4000);
    json_decref(status);
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

/* A neighbour that owns nothing, has always something to launch, and launches where it is let. */
struct neighbour {
    struct lithos_arena *arena;
    const struct rig *rig;
    int sock;
    uint64_t sequence;
};

static struct neighbour neighbour_comes(struct rig *rig)
{
    union lithos_message m;
    rig_admit_message(&m, "be", "0");
    m.admit.class = LITHOS_CLASS_BEST_EFFORT;
    struct rig_tenant t = rig_tenant(rig, &m, RIG_WAIT);
    struct neighbour n = {.rig = rig, .sock = rig_connect(rig)};
    n.arena = rig_attach(&t, n.sock);
    atomic_store(&n.arena->queue_depth, 3);
    return n;
}

static struct lithos_tpcset lent_to(const struct neighbour *n, const struct service *from)
{
    struct lithos_rule r;
    uint32_t seq;
    for (uint64_t begin_ns = lithos_now_ns(); lithos_arena_read_rule(n->arena, 0, &r, &seq) == -EAGAIN;
         usleep(20))
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    return lithos_tpcset_and(lithos_tpcset_or(r.lent, r.spare), from->own);
}

/* A short kernel there. */
static void use(struct neighbour *n, struct lithos_tpcset tpcs)
{
    struct lithos_record r = {.sequence = ++n->sequence,
                              .submit_ns = lithos_now_ns(),
                              .function = 7,
                              .kind = LITHOS_RECORD_LAUNCH,
                              .cluster = 1,
                              .launch = {.grid = {1000, 1, 1}, .block = {128, 1, 1}, .tpcs = tpcs}};
    r.launch.stamp = n->sequence;
    assert_true(lithos_record_put(&n->arena->records, 0, &n->arena->record_tails[0], &r));
    until_read(n->arena);
    struct lithos_stamp *s = &n->arena->stamps[n->sequence % LITHOS_STAMP_SLOTS];
    atomic_store(&s->time_ns, lithos_now_ns());
    atomic_store(&s->payload, n->sequence);
}

static json_int_t strip_figure(const struct rig *rig, const char *key)
{
    json_t *status, *r = rightsize_of(rig, &status);
    const json_int_t v = json_integer_value(json_object_get(json_object_get(r, "strip"), key));
    json_decref(status);
    return v;
}

static const char *rightsize_text(const struct rig *rig)
{
    static char text[2048];
    json_t *status, *r = rightsize_of(rig, &status);
    char *dump = json_dumps(r, JSON_COMPACT);
    snprintf(text, sizeof text, "%s", dump ? dump : "?");
    free(dump);
    json_decref(status);
    return text;
}

static const char *explained(const struct rig *rig, const char *name)
{
    static char text[16384];
    union lithos_message m;
    int sock = rig_connect(rig), fd = -1;
    lithos_message_init(&m, LITHOS_MSG_EXPLAIN);
    snprintf(m.explain.name, sizeof m.explain.name, "%s", name);
    assert_int_equal(lithos_socket_call(sock, &m, &m, &fd, LITHOS_NSEC_PER_SEC), 0);
    close(sock);
    json_t *document = json_loadfd(fd, 0, NULL);
    close(fd);
    char *dump = json_dumps(document, JSON_COMPACT);
    snprintf(text, sizeof text, "%s", dump ? dump : "?");
    free(dump);
    json_decref(document);
    return text;
}

/* What is lent while a kernel of the service is under way: nothing that that may run on. */
static struct lithos_tpcset lent_beside(struct service *s, struct neighbour *n, uint64_t function)
{
    struct lithos_record r = {.kind = LITHOS_RECORD_LAUNCH,
                              .submit_ns = lithos_now_ns(),
                              .function = function,
                              .registers = 32,
                              .launch = {.stamp = ++s->stamp, .grid = {8, 1, 1}, .block = {128, 1, 1}}};
    r.launch.tpcs = where(s, r.launch.grid, function);
    put(s, &r);
    until_read(s->arena);
    struct lithos_tpcset lent, both;
    for (uint64_t begin_ns = lithos_now_ns();; usleep(20)) { /* it is decided on after it has been read */
        lent = lent_to(n, s);
        both = lithos_tpcset_and(lent, r.launch.tpcs);
        if (lithos_tpcset_empty(&both))
            break;
        if (lithos_now_ns() - begin_ns > TAKEN_BACK_NS)
            fail_msg("a kernel of the service is under way on TPCs that are lent; %s; %s",
                     explained(n->rig, "service"), rightsize_text(n->rig));
    }
    if (!lithos_tpcset_empty(&lent))
        use(n, lent);
    s->clock_ns = LITHOS_MAX(lithos_now_ns(), s->clock_ns);
    struct lithos_stamp *stamp = &s->arena->stamps[s->stamp % LITHOS_STAMP_SLOTS];
    atomic_store(&stamp->time_ns, s->clock_ns);
    atomic_store(&stamp->payload, s->stamp);
    return lent;
}

static void until_lent_beside(struct service *s, struct neighbour *n, uint32_t requests)
{
    uint32_t good = 0;
    for (uint64_t begin_ns = lithos_now_ns(); good < requests;) {
        const struct lithos_tpcset lent = lent_beside(s, n, 0x100);
        request(s);
        good += !lithos_tpcset_empty(&lent);
        if (lithos_now_ns() - begin_ns > PATIENCE_NS)
            fail_msg("nothing is lent beside the service: %s", rightsize_text(n->rig));
    }
}

/* Its launches keep off some TPCs, and a neighbour has those though it is busy, until a launch goes there or nobody borrows. */
static void what_it_leaves_is_lent(void **state)
{
    struct rig *rig = *state;
    struct service s;
    struct neighbour n;
    int sock;
    service_starts(rig, 1500000, &s, &sock);
    s.kernels = 2;
    s.rounds = 8;
    n = neighbour_comes(rig);
    until_lent_beside(&s, &n, 20);
    assert_true(strip_figure(rig, "requests") >= 10);
    assert_int_equal(strip_figure(rig, "met"), 0);
    /* a kernel of which nothing is known has all TPCs, at once */
    uint64_t function = 0x900;
    for (uint64_t begin_ns = lithos_now_ns(); strip_figure(rig, "met") == 0;) {
        lent_beside(&s, &n, ++function);
        request(&s);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
    until_lent_beside(&s, &n, 5);
    /* it needs nothing any more */
    until_lent_beside(&s, &n, 1);
    atomic_store(&n.arena->queue_depth, 0);
    const json_int_t left = strip_figure(rig, "requests");
    for (int i = 0; i < 40; i++)
        request(&s);
    const struct lithos_tpcset kept = lithos_arena_kept(s.arena);
    assert_true(lithos_tpcset_empty(&kept) && strip_figure(rig, "tpcs") == 0);
    /* not only since nobody took it: that takes more */
    assert_true(strip_figure(rig, "requests") - left < 8);
    munmap(n.arena, LITHOS_ARENA_BYTES);
    munmap(s.arena, LITHOS_ARENA_BYTES);
    close(n.sock);
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
        cmocka_unit_test_setup_teardown(what_comes_before_tells, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_that_suffer_end_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_slip_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_of_two_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(only_who_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(what_it_leaves_is_lent, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
