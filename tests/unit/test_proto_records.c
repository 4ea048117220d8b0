/* proto: launch records through a ring, completion stamps. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/arena.h"

static struct lithos_record launch_record(uint64_t sequence)
{
    struct lithos_record r = {.sequence = sequence, .kind = LITHOS_RECORD_LAUNCH, .cluster = 1};
    r.launch.grid[0] = (uint32_t)sequence;
    return r;
}

static void validator_knows_good_from_bad(void **state)
{
    (void)state;
    struct lithos_record r = launch_record(1);
    assert_int_equal(lithos_record_validate(&r), 0);
    r.cluster = 0;
    assert_int_equal(lithos_record_validate(&r), -EPROTO);
    r.kind = LITHOS_RECORD_SYNC;
    assert_int_equal(lithos_record_validate(&r), 0);
    r.kind = 0;
    assert_int_equal(lithos_record_validate(&r), -EPROTO);
    r.kind = LITHOS_RECORD_KIND_MAX;
    assert_int_equal(lithos_record_validate(&r), -EPROTO);
    r = (struct lithos_record){.kind = LITHOS_RECORD_NAME};
    assert_int_equal(lithos_record_validate(&r), -EPROTO); /* no name at all */
    r.name.total = 81;
    r.name.offset = 80;
    assert_int_equal(lithos_record_validate(&r), 0);
    r.name.offset = 81;
    assert_int_equal(lithos_record_validate(&r), -EPROTO);
}

static struct lithos_record_rings rings;

static void fill_and_drop(unsigned ring)
{
    _Atomic uint32_t tail = UINT32_MAX - 5; /* wraps on the way */
    struct lithos_record r, out;
    uint32_t lost = 77;
    atomic_store(&rings.ring[ring].head, tail);
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), 0);
    for (uint32_t i = 0; i < lithos_record_ring_slots(ring); i++) {
        r = launch_record(i + 1);
        assert_true(lithos_record_put(&rings, ring, &tail, &r));
    }
    assert_false(lithos_record_put(&rings, ring, &tail, &r));
    for (uint32_t i = 0; i < lithos_record_ring_slots(ring); i++) {
        assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), 1);
        assert_int_equal(out.sequence, i + 1);
        assert_int_equal(out.launch.grid[0], i + 1);
    }
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), 0);
    assert_true(lithos_record_put(&rings, ring, &tail, &r));
    assert_int_equal(lost, 77); /* untouched but when something was */
}

static void a_full_ring_drops(void **state)
{
    (void)state;
    for (unsigned ring = 0; ring < LITHOS_RECORD_RINGS; ring++)
        fill_and_drop(ring);
    assert_int_equal(lithos_record_ring_slots(0), LITHOS_RECORD_LARGE_RING_SLOTS);
    assert_int_equal(lithos_record_ring_slots(LITHOS_RECORD_LARGE_RINGS), LITHOS_RECORD_SMALL_RING_SLOTS);
}

/* No slot belongs to two rings, none to nobody. */
static void rings_share_no_slot(void **state)
{
    (void)state;
    static uint8_t owners[LITHOS_RECORD_SLOTS];
    for (unsigned ring = 0; ring < LITHOS_RECORD_RINGS; ring++)
        for (uint32_t i = 0; i < lithos_record_ring_slots(ring); i++) {
            uint32_t slot = lithos_record_slot(ring, UINT32_MAX - 100 + i);
            assert_true(slot < LITHOS_RECORD_SLOTS);
            owners[slot]++;
        }
    for (uint32_t i = 0; i < LITHOS_RECORD_SLOTS; i++)
        assert_int_equal(owners[i], 1);
}

static void a_reader_is_woken_once(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++)
            assert_false(lithos_record_wake(&rings.ring[i]));
        lithos_record_ask(&rings, true);
        for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i += 3) {
            assert_true(lithos_record_wake(&rings.ring[i]));
            assert_false(lithos_record_wake(&rings.ring[i]));
        }
        lithos_record_ask(&rings, false);
    }
}

/* Between the two steps of a writer another arena comes to lie there: as far as the one before, or not. */
static void another_arena_has_nothing_of_it(void **state)
{
    (void)state;
    static struct lithos_record_rings fresh;
    struct lithos_record out = {0};
    for (uint32_t before = 0; before < 3; before++) {
        _Atomic uint32_t tail = 0;
        uint32_t head, lost;
        rings = fresh;
        for (uint32_t i = 0; i < before; i++) {
            const struct lithos_record r = launch_record(i + 1);
            assert_true(lithos_record_put(&rings, 0, &tail, &r));
        }
        struct lithos_record *slot =
            lithos_record_begin(&rings.ring[0], rings.slots, lithos_record_ring_slots(0), &tail, &head);
        assert_non_null(slot);
        *slot = launch_record(9);
        rings = fresh;
        assert_false(lithos_record_end(&rings.ring[0], slot, head));
        assert_int_equal(lithos_record_get(&rings, 0, &tail, &out, &lost), 0);
        const struct lithos_record r = launch_record(10);
        assert_true(lithos_record_put(&rings, 0, &tail, &r));
        assert_int_equal(lithos_record_get(&rings, 0, &tail, &out, &lost), 1);
        assert_int_equal(out.sequence, 10);
    }
}

static void a_lying_writer_is_passed_over(void **state)
{
    (void)state;
    const unsigned ring = LITHOS_RECORD_LARGE_RINGS;
    _Atomic uint32_t tail = 10, *head = &rings.ring[ring].head;
    struct lithos_record out = {.sequence = 99}, r = launch_record(3);
    uint32_t lost = 0;
    atomic_store(head, 10 + LITHOS_RECORD_SMALL_RING_SLOTS + 1);
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), -EOVERFLOW);
    assert_int_equal(lost, LITHOS_RECORD_SMALL_RING_SLOTS + 1);
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), 0);
    atomic_store(head, tail - 1); /* back in time */
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), -EOVERFLOW);
    assert_int_equal(tail, *head);
    r.kind = 1000;
    assert_true(lithos_record_put(&rings, ring, &tail, &r));
    r = launch_record(4);
    assert_true(lithos_record_put(&rings, ring, &tail, &r));
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), -EPROTO);
    assert_int_equal(out.sequence, 99);
    assert_int_equal(lithos_record_get(&rings, ring, &tail, &out, &lost), 1);
    assert_int_equal(out.sequence, 4);
}

static void stamps_belong_to_a_sequence(void **state)
{
    (void)state;
    static struct lithos_stamp stamps[LITHOS_STAMP_SLOTS];
    uint64_t time_ns = 5;
    assert_int_equal(lithos_stamp_read(stamps, 0, &time_ns), 0); /* of a launch without */
    assert_int_equal(lithos_stamp_read(stamps, 7, &time_ns), 0);
    atomic_store(&stamps[7].payload, 7);
    assert_int_equal(lithos_stamp_read(stamps, 7, &time_ns), 0); /* its time is still under way */
    assert_int_equal(time_ns, 5);
    atomic_store(&stamps[7].time_ns, 123);
    assert_int_equal(lithos_stamp_read(stamps, 7, &time_ns), 1);
    assert_int_equal(time_ns, 123);
    assert_int_equal(lithos_stamp_read(stamps, 7 + LITHOS_STAMP_SLOTS, &time_ns), 0);
    atomic_store(&stamps[7].payload, 7 + LITHOS_STAMP_SLOTS);
    assert_int_equal(lithos_stamp_read(stamps, 7, &time_ns), -ESTALE);
    assert_int_equal(lithos_stamp_read(stamps, 7 + LITHOS_STAMP_SLOTS, &time_ns), 1);
    atomic_store(&stamps[7].payload, 9 + LITHOS_STAMP_SLOTS); /* a payload that this slot cannot hold */
    assert_int_equal(lithos_stamp_read(stamps, 7, &time_ns), 0);
}

/* ---- a writer and a reader at once ---- */

#define RACED 200000u

static struct {
    struct lithos_record_rings rings;
    _Atomic uint32_t tail;
    struct lithos_stamp stamps[LITHOS_STAMP_SLOTS];
} shared;

/* As the GPU does: the time is there when the payload is. */
static void write_stamp(uint64_t sequence)
{
    struct lithos_stamp *s = &shared.stamps[sequence % LITHOS_STAMP_SLOTS];
    atomic_store_explicit(&s->time_ns, 0, memory_order_release);
    atomic_store_explicit(&s->payload, sequence, memory_order_release);
    atomic_store_explicit(&s->time_ns, sequence * 3, memory_order_release);
}

static void *write_all(void *dropped)
{
    for (uint64_t i = 1; i <= RACED;) {
        struct lithos_record r = launch_record(i);
        if (!lithos_record_put(&shared.rings, LITHOS_RECORD_RINGS - 1, &shared.tail, &r)) {
            (*(uint64_t *)dropped)++;
            sched_yield();
            continue;
        }
        write_stamp(i++);
    }
    return NULL;
}

static void a_reader_sees_whole_records(void **state)
{
    (void)state;
    pthread_t writer;
    uint64_t dropped = 0, stale = 0, time_ns, next = 1;
    assert_int_equal(pthread_create(&writer, NULL, write_all, &dropped), 0);
    while (next <= RACED) {
        struct lithos_record r;
        uint32_t lost;
        int got = lithos_record_get(&shared.rings, LITHOS_RECORD_RINGS - 1, &shared.tail, &r, &lost);
        assert_in_range(got, 0, 1);
        if (!got)
            continue;
        assert_int_equal(r.sequence, next);
        assert_int_equal(r.launch.grid[0], (uint32_t)next);
        int stamped = lithos_stamp_read(shared.stamps, next, &time_ns);
        if (stamped == 1)
            assert_int_equal(time_ns, next * 3);
        stale += stamped == -ESTALE;
        next++;
    }
    pthread_join(writer, NULL);
    assert_int_equal(stale, 0); /* the ring holds fewer than there are stamps */
    assert_int_equal(lithos_stamp_read(shared.stamps, RACED, &time_ns), 1);
    assert_int_equal(lithos_stamp_read(shared.stamps, RACED - LITHOS_STAMP_SLOTS, &time_ns), -ESTALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(validator_knows_good_from_bad), cmocka_unit_test(a_full_ring_drops),
        cmocka_unit_test(rings_share_no_slot),           cmocka_unit_test(a_reader_is_woken_once),
        cmocka_unit_test(a_lying_writer_is_passed_over), cmocka_unit_test(stamps_belong_to_a_sequence),
        cmocka_unit_test(a_reader_sees_whole_records),   cmocka_unit_test(another_arena_has_nothing_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
