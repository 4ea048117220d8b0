/* Any bytes as a card and what happens to a predictor on it: answers stay within bounds, every launch is counted
 * once, nothing is written outside its memory. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "core/predict.h"
#include "fuzz/fuzz.h"

#define TICKETS 32u
#define MEMORY_MAX (1u << 20)
#define GUARD 64u

struct event {
    uint8_t what, stream, ticket, spare;
    uint32_t tpcs;
    uint64_t duration_ns;
    struct lithos_kernel_shape shape;
};

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    struct lithos_predict_config c = {
        .tpcs = 66,
        .sms_per_tpc = 2,
        .sm_threads = 2048,
        .sm_blocks = 32,
        .sm_registers = 65536,
        .sm_shared_bytes = 233472,
        .block_shared_reserved_bytes = 1024,
        .warp_register_unit = 256,
    };
    const size_t events = (LITHOS_MIN(size, 4096u) - sizeof(c)) / sizeof(struct event);

    if (n > 2 || size < sizeof(c) + sizeof(struct event))
        return 0;
    lithos_predict_config_defaults(&c);
    c.ordinals = c.shapes = c.contexts = c.paths = c.functions = c.streams = n == 0 ? 8 : 64;
    memcpy(buf, &c, sizeof(c));
    for (size_t i = 0; i < events; i++) {
        const struct event e = {
            .what = (uint8_t)(n < 2 ? i : i / 5),
            .stream = i % 3 == 0,
            .ticket = (uint8_t)(i / 2),
            .tpcs = n == 2 ? 66 - (uint32_t)i % 40 : 66,
            .duration_ns = 10000 * (i % 7),
            .shape = {.function = i % 5,
                      .grid = {100 * (uint32_t)(i % 4), 1, 1},
                      .block = {256, 1, 1},
                      .registers = 32},
        };
        memcpy(buf + sizeof(c) + i * sizeof(e), &e, sizeof(e));
    }
    return sizeof(c) + events * sizeof(struct event);
}

static void check_answer(const struct lithos_prediction *a)
{
    lithos_assert(a->confidence >= 0 && a->confidence <= 1);
    lithos_assert(a->duration_ns <= LITHOS_PREDICT_DURATION_MAX_NS);
    lithos_assert((unsigned)a->source < LITHOS_PREDICT_SOURCE_MAX &&
                  (unsigned)a->method < LITHOS_PREDICT_METHOD_MAX);
    lithos_assert(a->source != LITHOS_PREDICT_NONE || (a->duration_ns == 0 && a->confidence == 0));
}

static void check_stats(const struct lithos_predict_stats *s, uint64_t submitted, uint64_t observed)
{
    uint64_t by_source = 0, off = 0, errors = 0;

    for (unsigned i = 0; i < LITHOS_PREDICT_SOURCE_MAX; i++) {
        by_source += s->source[i];
        off += s->source_off[i];
    }
    for (unsigned i = 0; i < LITHOS_PREDICT_ERROR_SLOTS; i++)
        errors += s->error[i];
    lithos_assert(s->submitted == submitted);
    lithos_assert(s->chosen.launches + s->other_width + s->refused == observed);
    lithos_assert(by_source == s->chosen.launches && off == s->chosen.off && errors == s->chosen.launches);
    lithos_assert(s->source[LITHOS_PREDICT_NONE] == s->chosen.silent);
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        lithos_assert(s->method[m].launches == s->chosen.launches && s->method[m].off <= s->chosen.launches);
}

static void play(struct lithos_predictor *p, const uint8_t *data, size_t size)
{
    struct lithos_predict_ticket ticket[TICKETS];
    bool open[TICKETS] = {false};
    struct lithos_prediction a;
    uint64_t submitted = 0, observed = 0;
    struct event e;

    for (size_t at = 0; at + sizeof(e) <= size; at += sizeof(e)) {
        memcpy(&e, data + at, sizeof(e));
        const unsigned t = e.ticket % TICKETS;
        switch (e.what % 8) {
        case 0:
        case 2:
        case 4:
            lithos_predictor_submit(p, e.stream, &e.shape, e.tpcs, &a, &ticket[t]);
            check_answer(&a);
            open[t] = true;
            submitted++;
            break;
        case 6:
            if (e.stream % 2)
                lithos_predictor_sync(p, e.stream);
            else
                lithos_predictor_sync_all(p);
            break;
        case 7:
            if (open[t]) {
                lithos_predictor_what_if(p, &ticket[t], e.tpcs, &a);
                check_answer(&a);
            }
            break;
        default:
            if (!open[t])
                break;
            const int r = lithos_predictor_observe(p, &ticket[t], e.duration_ns, e.tpcs);
            lithos_assert((r == 0) == (e.duration_ns <= LITHOS_PREDICT_DURATION_MAX_NS));
            observed++;
            open[t] = false;
        }
    }
    check_stats(lithos_predictor_stats(p), submitted, observed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lithos_predict_config c;
    struct lithos_predictor *p;
    uint8_t *mem;
    size_t bytes;

    if (size < sizeof(c))
        return 0;
    memcpy(&c, data, sizeof(c));
    if (lithos_predictor_size(&c, &bytes) < 0 || bytes > MEMORY_MAX)
        return 0;
    mem = malloc(bytes + GUARD);
    if (!mem)
        return 0;
    memset(mem, 0x5a, bytes + GUARD);
    lithos_assert(lithos_predictor_init(mem, bytes, &c, &p) == 0);
    play(p, data + sizeof(c), size - sizeof(c));
    for (size_t i = 0; i < GUARD; i++)
        lithos_assert(mem[bytes + i] == 0x5a);
    free(mem);
    return 0;
}
