/* proto: the arena's seqlock and validators, messages, and the texts of quotas, tenants and UUIDs. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/arena.h"
#include "proto/message.h"
#include "proto/socket.h"

static struct lithos_grant sample_grant(void)
{
    struct lithos_grant g = {.epoch = 7, .gpu_count = 1};
    g.gpus[0].topology = (struct lithos_topology){.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    assert_int_equal(lithos_tpcset_parse("0-3,9-16,75", &g.gpus[0].topology.valid), 0);
    assert_int_equal(lithos_tpcset_parse("0-3", &g.gpus[0].own), 0);
    return g;
}

static struct lithos_arena *new_arena(void)
{
    struct lithos_arena *a = aligned_alloc(4096, LITHOS_ARENA_BYTES);
    assert_non_null(a);
    memset(a, 0, LITHOS_ARENA_BYTES);
    a->magic = LITHOS_ARENA_MAGIC;
    a->version = LITHOS_ARENA_VERSION;
    a->size = LITHOS_ARENA_BYTES;
    return a;
}

static void grant_validator_knows_good_from_bad(void **state)
{
    (void)state;
    struct lithos_grant good = sample_grant(), g = good;
    assert_int_equal(lithos_grant_validate(&good), 0);
    g.gpu_count = 0;
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    g.gpu_count = LITHOS_MAX_GPUS + 1;
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    g = good;
    g.gpus[0].own = (struct lithos_tpcset){{0, 0}};
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    lithos_tpcset_add(&g.gpus[0].own, 4); /* a bit that is no TPC */
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    g = good;
    g.gpus[0].topology.sms_per_tpc = 0;
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    g = good;
    g.gpu_count = 2; /* the same UUID twice */
    g.gpus[1] = g.gpus[0];
    assert_int_equal(lithos_grant_validate(&g), -EINVAL);
    g.gpus[1].uuid[3] = 1;
    assert_int_equal(lithos_grant_validate(&g), 0);
}

static void arena_validator_knows_good_from_bad(void **state)
{
    (void)state;
    struct lithos_arena *a = new_arena();
    assert_int_equal(lithos_arena_validate(a, LITHOS_ARENA_BYTES), 0);
    assert_int_equal(lithos_arena_validate(a, LITHOS_ARENA_BYTES - 1), -EPROTO);
    a->version++;
    assert_int_equal(lithos_arena_validate(a, LITHOS_ARENA_BYTES), -EPROTONOSUPPORT);
    a->version--;
    a->size++;
    assert_int_equal(lithos_arena_validate(a, LITHOS_ARENA_BYTES), -EPROTO);
    a->magic = 0;
    assert_int_equal(lithos_arena_validate(a, LITHOS_ARENA_BYTES), -EPROTO);
    free(a);
}

static void published_grant_is_read_back(void **state)
{
    (void)state;
    struct lithos_arena *a = new_arena();
    struct lithos_grant g = sample_grant(), back;
    uint32_t seq = 99;
    assert_int_equal(lithos_arena_read_grant(a, &back, &seq), -EINVAL); /* nothing published yet */
    assert_int_equal(seq, 99);
    uint64_t before_ns = lithos_now_ns();
    lithos_arena_publish(a, &g);
    assert_true(atomic_load(&a->lease_ns) >= before_ns);
    assert_int_equal(lithos_arena_read_grant(a, &back, &seq), 0);
    assert_memory_equal(&g, &back, sizeof g);
    assert_int_equal(seq, lithos_arena_grant_seq(a));
    atomic_store(&a->grant_seq, seq + 1); /* the daemon died in the middle of a write */
    assert_int_equal(lithos_arena_read_grant(a, &back, &seq), -EAGAIN);
    lithos_arena_publish(a, &g);
    assert_int_equal(lithos_arena_read_grant(a, &back, &seq), 0);
    free(a);
}

struct race {
    struct lithos_arena *arena;
    _Atomic int stop;
    uint64_t read, torn;
};

static void *race_reader(void *arg)
{
    struct race *race = arg;
    struct lithos_grant g;
    uint64_t last = 0;
    while (!atomic_load_explicit(&race->stop, memory_order_relaxed)) {
        int r = lithos_arena_read_grant(race->arena, &g, NULL);
        if (r == -EAGAIN)
            continue;
        /* Every word of a grant is written from its epoch: any mix of two is seen. */
        bool whole = r == 0 && g.epoch >= last && g.gpu_count == LITHOS_MAX_GPUS;
        for (uint32_t i = 0; whole && i < LITHOS_MAX_GPUS; i++) {
            uint64_t stamp;
            memcpy(&stamp, g.gpus[i].uuid, sizeof stamp);
            whole = stamp == g.epoch && g.gpus[i].own.w[1] == g.epoch;
        }
        race->read++;
        race->torn += !whole;
        last = g.epoch;
        lithos_arena_count(race->arena, LITHOS_COUNTER_LAUNCHES, 1);
    }
    return NULL;
}

static void seqlock_is_never_torn(void **state)
{
    (void)state;
    struct race race = {.arena = new_arena()};
    struct lithos_grant g = {.gpu_count = LITHOS_MAX_GPUS};
    pthread_t thread;
    for (uint64_t epoch = 1;; epoch++) {
        g.epoch = epoch;
        for (uint32_t i = 0; i < LITHOS_MAX_GPUS; i++) {
            g.gpus[i].topology = (struct lithos_topology){.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
            g.gpus[i].topology.valid = (struct lithos_tpcset){{UINT64_MAX, UINT64_MAX}};
            memcpy(g.gpus[i].uuid, &epoch, sizeof epoch);
            g.gpus[i].uuid[15] = (uint8_t)i;
            g.gpus[i].own = (struct lithos_tpcset){{1, epoch}};
        }
        lithos_arena_publish(race.arena, &g);
        if (epoch == 1)
            assert_int_equal(pthread_create(&thread, NULL, race_reader, &race), 0);
        uint64_t counters[LITHOS_COUNTER_MAX];
        lithos_arena_read_counters(race.arena, counters);
        if (counters[LITHOS_COUNTER_LAUNCHES] > 2000 && epoch > 20000)
            break;
        if (epoch % 16 == 0) /* let the reader win now and then */
            for (int i = 0; i < 2000; i++)
                __builtin_ia32_pause();
    }
    atomic_store(&race.stop, 1);
    pthread_join(thread, NULL);
    assert_true(race.read > 2000);
    assert_int_equal(race.torn, 0);
    free(race.arena);
}

static void rules_are_read_back_and_checked(void **state)
{
    (void)state;
    struct lithos_arena *a = new_arena();
    struct lithos_rule r = {.flags = LITHOS_RULE_ON | LITHOS_RULE_STRICT | LITHOS_RULE_INSTEAD,
                            .window_ns = 250000,
                            .floor = 1,
                            .longest_ns = 400000,
                            .until_ns = 1ull << 50,
                            .spare = {{0xe00, 0}},
                            .lent = {{0x1ff, 1}}},
                       back;
    uint32_t seq = 99;
    assert_int_equal(lithos_arena_read_rule(a, 3, &back, &seq), 0); /* none: as zeroed */
    assert_true(back.flags == 0 && seq == 0);
    lithos_arena_set_rule(a, 3, &r);
    assert_int_equal(lithos_arena_rule_seq(a, 3), 2);
    assert_int_equal(lithos_arena_read_rule(a, 3, &back, &seq), 0);
    assert_memory_equal(&r, &back, sizeof r);
    assert_int_equal(lithos_arena_read_rule(a, 2, &back, &seq), 0); /* the others' stay */
    assert_int_equal(back.flags, 0);
    atomic_store(&a->rules[3].seq, 3); /* the daemon died in the middle of a write */
    assert_int_equal(lithos_arena_read_rule(a, 3, &back, &seq), -EAGAIN);
    static const struct lithos_rule bad[] = {
        {.flags = LITHOS_RULE_HOLD},
        {.flags = LITHOS_RULE_ON},
        {.flags = LITHOS_RULE_ON | 16, .floor = 1},
        {.flags = LITHOS_RULE_ON, .floor = LITHOS_RULE_FLOOR_MAX + 1},
        {.flags = LITHOS_RULE_ON, .floor = 1, .window_ns = LITHOS_RULE_WINDOW_MAX_NS + 1},
        {.flags = LITHOS_RULE_ON, .floor = 1, .own_window_ns = LITHOS_RULE_WINDOW_MAX_NS + 1},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++) {
        lithos_arena_set_rule(a, 3, &bad[i]);
        assert_int_equal(lithos_arena_read_rule(a, 3, &back, &seq), -EINVAL);
    }
    free(a);
}

static void class_text(void **state)
{
    (void)state;
    uint32_t class = 7;
    assert_int_equal(lithos_class_parse("best-effort", &class), 0);
    assert_int_equal(class, LITHOS_CLASS_BEST_EFFORT);
    assert_int_equal(lithos_class_parse(lithos_class_name(LITHOS_CLASS_HIGH), &class), 0);
    assert_int_equal(class, LITHOS_CLASS_HIGH);
    static const char *const bad[] = {"", "High", "best", "best-effort ", "low"};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_class_parse(bad[i], &class), -EINVAL);
    assert_string_equal(lithos_class_name(LITHOS_CLASS_MAX), "?");
}

static void counters_have_stable_names(void **state)
{
    (void)state;
    assert_string_equal(lithos_counter_name(LITHOS_COUNTER_LAUNCHES), "launches");
    assert_string_equal(lithos_counter_name(LITHOS_COUNTER_DRIVER_QMDS), "driver_qmds");
    assert_string_equal(lithos_counter_name(LITHOS_COUNTER_MAX), "?");
}

static void messages_of_every_type_have_a_size(void **state)
{
    (void)state;
    for (int t = 1; t < LITHOS_MSG_TYPE_MAX; t++)
        assert_true(lithos_message_size((enum lithos_msg_type)t) >= sizeof(struct lithos_msg_header));
    assert_int_equal(lithos_message_size(0), 0);
    assert_int_equal(lithos_message_size(LITHOS_MSG_TYPE_MAX), 0);
}

static int validate(const union lithos_message *m)
{
    const char *why = NULL;
    int r = lithos_message_validate(m, m->h.size, &why);
    assert_true(r == 0 || (why && *why));
    return r;
}

static void message_headers_are_checked(void **state)
{
    (void)state;
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_STATUS);
    assert_int_equal(validate(&m), 0);
    assert_int_equal(lithos_message_validate(&m, sizeof m.h - 1, NULL), -EPROTO);
    assert_int_equal(lithos_message_validate(&m, sizeof m.h + 1, NULL), -EPROTO);
    assert_int_equal(lithos_message_validate(&m, 0, NULL), -EPROTO);
    m.h.version = LITHOS_MSG_VERSION + 1;
    assert_int_equal(validate(&m), -EPROTONOSUPPORT);
    m.h.version = LITHOS_MSG_VERSION;
    m.h.type = LITHOS_MSG_TYPE_MAX;
    assert_int_equal(validate(&m), -EPROTO);
    m.h.type = LITHOS_MSG_STATUS;
    m.h.reserved = 1;
    assert_int_equal(validate(&m), -EPROTO);
    m.h.reserved = 0;
    m.h.magic = 0;
    assert_int_equal(validate(&m), -EPROTO);
}

static void admit_is_checked(void **state)
{
    (void)state;
    union lithos_message good, m;
    lithos_message_init(&good, LITHOS_MSG_ADMIT);
    good.admit.quota = (struct lithos_quota){LITHOS_QUOTA_PERCENT, 4000};
    strcpy(good.admit.name, "train-1");
    strcpy(good.admit.command, "python3");
    assert_int_equal(validate(&good), 0);
#define BAD(change, result)                     \
    do {                                        \
        m = good;                               \
        change;                                 \
        assert_int_equal(validate(&m), result); \
    } while (0)
    BAD(m.admit.quota.value = 0, -EINVAL);
    BAD(m.admit.quota.value = 10001, -EINVAL);
    BAD((m.admit.quota = (struct lithos_quota){LITHOS_QUOTA_TPCS, 129}), -EINVAL);
    BAD(m.admit.quota.unit = LITHOS_QUOTA_UNIT_MAX, -EINVAL);
    BAD(memset(m.admit.name, 'a', sizeof m.admit.name), -EINVAL);
    BAD(strcpy(m.admit.name, "two words"), -EINVAL);
    BAD(strcpy(m.admit.name, "\033[31m"), -EINVAL);
    BAD(memset(m.admit.command, 'a', sizeof m.admit.command), -EPROTO);
    BAD(m.admit.want_coarse = 2, -EPROTO);
    BAD(m.admit.class = LITHOS_CLASS_MAX, -EINVAL);
    BAD(m.admit.gpu_count = LITHOS_MAX_GPUS + 1, -EINVAL);
    BAD(m.admit.visible_count = UINT32_MAX, -EINVAL);
    BAD(m.admit.gpu_count = 2, -EINVAL); /* all zero twice */
#undef BAD
}

static void other_messages_are_checked(void **state)
{
    (void)state;
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_ADMITTED);
    assert_int_equal(validate(&m), -EPROTO);
    m.admitted.tenant = 1;
    assert_int_equal(validate(&m), -EPROTO); /* no grant */
    m.admitted.grant = sample_grant();
    assert_int_equal(validate(&m), 0);
    m.admitted.mode = LITHOS_MODE_MAX;
    assert_int_equal(validate(&m), -EPROTO);
    m.admitted.mode = 0;
    memset(m.admitted.note, 'x', sizeof m.admitted.note);
    assert_int_equal(validate(&m), -EPROTO);

    lithos_message_init(&m, LITHOS_MSG_ATTACH);
    assert_int_equal(validate(&m), -EPROTO);
    m.attach.tenant = 5;
    assert_int_equal(validate(&m), 0);
    memset(m.attach.process, 'x', sizeof m.attach.process);
    assert_int_equal(validate(&m), -EPROTO);

    lithos_message_init(&m, LITHOS_MSG_SET);
    m.set.what = LITHOS_SET_QUOTA;
    m.set.quota = (struct lithos_quota){LITHOS_QUOTA_TPCS, 26};
    assert_int_equal(validate(&m), -EINVAL); /* no name */
    strcpy(m.set.name, "a");
    assert_int_equal(validate(&m), 0);
    m.set.class = LITHOS_CLASS_BEST_EFFORT; /* not among what is to be set */
    assert_int_equal(validate(&m), -EINVAL);
    m.set.what |= LITHOS_SET_CLASS;
    assert_int_equal(validate(&m), 0);
    m.set.class = LITHOS_CLASS_MAX;
    assert_int_equal(validate(&m), -EINVAL);

    lithos_message_init(&m, LITHOS_MSG_ERROR);
    assert_int_equal(validate(&m), -EPROTO);
    m.error.error = -EBUSY;
    assert_int_equal(validate(&m), 0);
    memset(m.error.text, 'x', sizeof m.error.text);
    assert_int_equal(validate(&m), -EPROTO);

    lithos_message_init(&m, LITHOS_MSG_DOCUMENT);
    assert_int_equal(validate(&m), -EPROTO);
    m.document.bytes = 2;
    assert_int_equal(validate(&m), 0);
    m.document.bytes = UINT64_MAX;
    assert_int_equal(validate(&m), -EPROTO);
}

static void quota_text(void **state)
{
    (void)state;
    static const struct {
        const char *text, *back;
        struct lithos_quota quota;
    } good[] = {
        {"40%", "40%", {LITHOS_QUOTA_PERCENT, 4000}},
        {"37.5%", "37.5%", {LITHOS_QUOTA_PERCENT, 3750}},
        {"0.01%", "0.01%", {LITHOS_QUOTA_PERCENT, 1}},
        {"100%", "100%", {LITHOS_QUOTA_PERCENT, 10000}},
        {"100.00%", "100%", {LITHOS_QUOTA_PERCENT, 10000}},
        {"1", "1", {LITHOS_QUOTA_TPCS, 1}},
        {"026", "26", {LITHOS_QUOTA_TPCS, 26}},
        {"128", "128", {LITHOS_QUOTA_TPCS, 128}},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(good); i++) {
        struct lithos_quota q;
        char text[16];
        assert_int_equal(lithos_quota_parse(good[i].text, &q), 0);
        assert_int_equal(q.unit, good[i].quota.unit);
        assert_int_equal(q.value, good[i].quota.value);
        assert_string_equal(lithos_quota_format(&q, text), good[i].back);
    }
    static const char *const out_of_range[] = {
        "0%", "0.00%", "100.01%", "101%", "129", "99999999999999999999", "99999999999999999999%"};
    static const char *const invalid[] = {"",   "%",   "a",   "40 %", " 40%",   "40%%",      "-1",
                                          "+1", "1.5", ".5%", "5.%",  "5.123%", "40percent", "0x10"};
    struct lithos_quota q = {7, 7};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(out_of_range); i++)
        assert_int_equal(lithos_quota_parse(out_of_range[i], &q), -ERANGE);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(invalid); i++)
        assert_int_equal(lithos_quota_parse(invalid[i], &q), -EINVAL);
    assert_int_equal(q.value, 7);
}

static void tenant_text(void **state)
{
    (void)state;
    uint8_t token[LITHOS_TOKEN_BYTES], back[LITHOS_TOKEN_BYTES];
    char text[LITHOS_TENANT_TEXT_MAX];
    uint64_t tenant;
    for (size_t i = 0; i < sizeof token; i++)
        token[i] = (uint8_t)(i * 17);
    assert_string_equal(lithos_tenant_format(0x1f, token, text), "1f:00112233445566778899aabbccddeeff");
    assert_int_equal(lithos_tenant_parse(text, &tenant, back), 0);
    assert_int_equal(tenant, 0x1f);
    assert_memory_equal(token, back, sizeof token);
    lithos_tenant_format(UINT64_MAX, token, text);
    assert_int_equal(lithos_tenant_parse(text, &tenant, back), 0);
    assert_true(tenant == UINT64_MAX);
    static const char *const bad[] = {"",
                                      ":",
                                      "1",
                                      "1:",
                                      "0:00112233445566778899aabbccddeeff",
                                      ":00112233445566778899aabbccddeeff",
                                      "1:00112233445566778899aabbccddeef",
                                      "1:00112233445566778899aabbccddeeff0",
                                      "1:00112233445566778899aabbccddeefg",
                                      "11112222333344445:00112233445566778899aabbccddeeff",
                                      "x:00"};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_tenant_parse(bad[i], &tenant, back), -EINVAL);
    assert_true(tenant == UINT64_MAX);
}

static void uuid_text(void **state)
{
    (void)state;
    static const char text[] = "GPU-8f8b1234-00ff-abcd-0123-456789abcdef";
    uint8_t uuid[LITHOS_UUID_BYTES], again[LITHOS_UUID_BYTES];
    char back[LITHOS_UUID_TEXT_MAX];
    assert_int_equal(lithos_uuid_parse(text, uuid), 0);
    assert_string_equal(lithos_uuid_format(uuid, back), text);
    assert_int_equal(lithos_uuid_parse(text + 4, again), 0);
    assert_memory_equal(uuid, again, sizeof uuid);
    assert_int_equal(lithos_uuid_parse("GPU-8F8B1234-00FF-ABCD-0123-456789ABCDEF", again), 0);
    assert_memory_equal(uuid, again, sizeof uuid);
    static const char *const bad[] = {"",
                                      "GPU-",
                                      "GPU-8f8b",
                                      "GPU-8f8b123400ffabcd0123456789abcdef",
                                      "GPU-8f8b1234-00ff-abcd-0123-456789abcdef0",
                                      "GPU-8f8b1234-00ff-abcd-0123-456789abcde",
                                      "MIG-8f8b1234-00ff-abcd-0123-456789abcdef",
                                      "gpu-8f8b1234-00ff-abcd-0123-456789abcdef"};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_uuid_parse(bad[i], again), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grant_validator_knows_good_from_bad),
        cmocka_unit_test(arena_validator_knows_good_from_bad),
        cmocka_unit_test(published_grant_is_read_back),
        cmocka_unit_test(seqlock_is_never_torn),
        cmocka_unit_test(rules_are_read_back_and_checked),
        cmocka_unit_test(class_text),
        cmocka_unit_test(counters_have_stable_names),
        cmocka_unit_test(messages_of_every_type_have_a_size),
        cmocka_unit_test(message_headers_are_checked),
        cmocka_unit_test(admit_is_checked),
        cmocka_unit_test(other_messages_are_checked),
        cmocka_unit_test(quota_text),
        cmocka_unit_test(tenant_text),
        cmocka_unit_test(uuid_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
