/* The ring that calls are queued in: any size, many writers, given back in any order. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "tenant/queue_ring.h"

#define GRANULES 256u
#define WRITERS 4
#define EACH 6000u
#define BODY_MAX 3000u

struct entry {
    struct lithos_queue_header ring;
    uint32_t writer, number, bytes;
    unsigned char body[];
};

static _Alignas(64) unsigned char memory[GRANULES * LITHOS_QUEUE_GRANULE];
static struct lithos_queue_ring ring;

/* Near the end of what places can count. */
static void begin(uint32_t place)
{
    memset(memory, 0, sizeof memory);
    lithos_queue_ring_init(&ring, memory, GRANULES);
    atomic_store(&ring.tail, place);
    atomic_store(&ring.head, place);
    ring.next = place;
}

static struct entry *put(uint32_t writer, uint32_t number, uint32_t bytes)
{
    uint32_t place;
    struct entry *e =
        (struct entry *)(void *)lithos_queue_ring_reserve(&ring, sizeof(struct entry) + bytes, &place);
    if (!e)
        return NULL;
    e->writer = writer;
    e->number = number;
    e->bytes = bytes;
    memset(e->body, 0xff, bytes); /* looks like a place, if anything does */
    lithos_queue_ring_publish(&e->ring, place);
    return e;
}

static struct entry *get(void)
{
    return (struct entry *)(void *)lithos_queue_ring_next(&ring);
}

static void test_one_thread(void **state)
{
    (void)state;
    begin(0);
    assert_null(get());
    assert_null(lithos_queue_ring_oldest(&ring));
    assert_non_null(put(1, 1, 10));
    assert_non_null(put(1, 2, 1000));
    struct entry *first = get(), *second = get();
    assert_true(first->number == 1 && second->number == 2 && second->bytes == 1000);
    assert_null(get());
    assert_ptr_equal(lithos_queue_ring_oldest(&ring), first);
    uint32_t used = lithos_queue_ring_used(&ring);
    lithos_queue_ring_give_back(&ring, &second->ring); /* behind one that is still needed */
    assert_int_equal(lithos_queue_ring_used(&ring), used);
    lithos_queue_ring_give_back(&ring, &first->ring);
    assert_int_equal(lithos_queue_ring_used(&ring), 0);
    assert_null(lithos_queue_ring_oldest(&ring));
    assert_int_equal(lithos_queue_ring_entries(&ring), 2);
}

/* It is full when it is full, also with a rest at its end that is too small; then room comes back. */
static void test_full(void **state)
{
    (void)state;
    for (uint32_t bytes = 1; bytes < BODY_MAX; bytes += 97) {
        begin(UINT32_MAX - 300);
        uint32_t put_ever = 0, got_ever = 0;
        for (int round = 0; round < 50; round++) {
            while (put(0, put_ever, bytes))
                put_ever++;
            assert_true(put_ever > got_ever);
            for (int i = 0; i < 2; i++) {
                struct entry *e = get();
                assert_true(e && e->number == got_ever++);
                lithos_queue_ring_give_back(&ring, &e->ring);
            }
        }
        assert_int_equal(lithos_queue_ring_entries(&ring), put_ever);
    }
}

/* One that was reserved and is not filled stops the reader there, and nobody else. */
static void test_not_ready(void **state)
{
    (void)state;
    uint32_t place;
    begin(7);
    struct lithos_queue_header *late = lithos_queue_ring_reserve(&ring, sizeof(struct entry), &place);
    assert_non_null(put(1, 2, 0));
    assert_null(get());
    ((struct entry *)(void *)late)->number = 1;
    lithos_queue_ring_publish(late, place);
    assert_int_equal(get()->number, 1);
    assert_int_equal(get()->number, 2);
}

static void *write_all(void *writer)
{
    uint32_t id = (uint32_t)(uintptr_t)writer, seed = id;
    for (uint32_t n = 0; n < EACH;) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t bytes = (seed >> 8) % (seed >> 30 ? 200 : BODY_MAX);
        if (put(id, n, bytes))
            n++;
    }
    return NULL;
}

static bool whole(const struct entry *e)
{
    for (uint32_t i = 0; i < e->bytes; i++)
        if (e->body[i] != 0xff)
            return false;
    return e->bytes < BODY_MAX;
}

static void test_many_writers(void **state)
{
    (void)state;
    pthread_t threads[WRITERS];
    uint32_t next[WRITERS] = {0}, kept = 0, met = 0, seed = 5;
    struct entry *keep[16];
    begin(UINT32_MAX - 5000);
    for (uintptr_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_all, (void *)i), 0);
    while (met < WRITERS * EACH) {
        struct entry *e = get();
        if (e) {
            assert_true(e->writer < WRITERS && e->number == next[e->writer]++ && whole(e));
            keep[kept++] = e;
            met++;
        }
        if (kept == LITHOS_ARRAY_SIZE(keep) || (!e && kept)) { /* any of them first */
            seed = seed * 1664525u + 1013904223u;
            uint32_t which = (seed >> 8) % kept;
            assert_true(whole(keep[which]));
            lithos_queue_ring_give_back(&ring, &keep[which]->ring);
            keep[which] = keep[--kept];
        }
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_null(get());
    while (kept)
        lithos_queue_ring_give_back(&ring, &keep[--kept]->ring);
    assert_int_equal(lithos_queue_ring_used(&ring), 0);
    assert_int_equal(lithos_queue_ring_entries(&ring), WRITERS * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_not_ready),
        cmocka_unit_test(test_many_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
