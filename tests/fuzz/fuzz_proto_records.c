/* The reader of launch records and stamps, over a ring and stamps that the other side has scribbled on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/records.h"

#define RING (LITHOS_RECORD_RINGS - 1)

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_accepted(const struct lithos_record *r)
{
    must(r->kind > 0 && r->kind < LITHOS_RECORD_KIND_MAX);
    if (r->kind == LITHOS_RECORD_NAME)
        must(r->name.offset < r->name.total);
    else if (r->kind < LITHOS_RECORD_GRAPH_LAUNCH)
        must(r->cluster > 0);
}

/* The input: where the reader stands, the ring's head, a stamp sequence, then the ring's records, then a stamp. */
struct scribble {
    uint32_t tail, head;
    uint64_t sequence;
    struct lithos_stamp stamp;
    struct lithos_record records[8];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithos_record_rings rings;
    static struct lithos_stamp stamps[LITHOS_STAMP_SLOTS];
    struct scribble s;
    memset(&s, 0, sizeof s);
    memcpy(&s, data, LITHOS_MIN(size, sizeof s));
    for (uint32_t i = 0; i < LITHOS_ARRAY_SIZE(s.records); i++)
        rings.slots[lithos_record_slot(RING, s.tail + i)] = s.records[i];
    atomic_store(&rings.ring[RING].head, s.head);
    _Atomic uint32_t tail = s.tail;
    uint32_t passed = 0, due = s.head - s.tail;
    for (int r;;) {
        struct lithos_record record;
        uint32_t lost = 0, before = tail;
        r = lithos_record_get(&rings, RING, &tail, &record, &lost);
        must(r == 0 || r == 1 || r == -EPROTO || r == -EOVERFLOW);
        if (r == 0)
            break;
        if (r == 1)
            check_accepted(&record);
        must(tail - before == (r == -EOVERFLOW ? lost : 1));
        passed += tail - before;
        must(passed <= due); /* it ends */
    }
    must(tail == s.head && passed == due);
    struct lithos_stamp *slot = &stamps[s.sequence % LITHOS_STAMP_SLOTS];
    *slot = s.stamp;
    uint64_t time_ns = 0;
    int r = lithos_stamp_read(stamps, s.sequence, &time_ns);
    must(r == 0 || r == 1 || r == -ESTALE);
    must((r == 1) == (s.sequence && s.stamp.payload == s.sequence && s.stamp.time_ns));
    must(r != 1 || time_ns == s.stamp.time_ns);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    struct scribble s = {.tail = n == 1 ? UINT32_MAX - 2 : 0, .sequence = 5 + n};
    if (n > 3 || size < sizeof s)
        return 0;
    s.head = s.tail + (n == 2 ? lithos_record_ring_slots(RING) + 1 : 6);
    s.stamp = (struct lithos_stamp){n == 3 ? s.sequence + LITHOS_STAMP_SLOTS : s.sequence, 1000};
    for (size_t kind = 0; kind < LITHOS_ARRAY_SIZE(s.records); kind++)
        s.records[kind] =
            (struct lithos_record){.sequence = kind, .kind = (uint16_t)kind, .cluster = kind & 1};
    s.records[LITHOS_RECORD_NAME].name.total = 5;
    memcpy(buf, &s, sizeof s);
    return sizeof s;
}
