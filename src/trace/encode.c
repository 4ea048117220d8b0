#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "trace/codec.h"
#include "trace/format.h"

struct out {
    uint8_t *buf;
    size_t len;
};

static void put_byte(struct out *o, uint8_t v)
{
    o->buf[o->len++] = v;
}

static void put_bytes(struct out *o, const void *data, size_t len)
{
    memcpy(o->buf + o->len, data, len);
    o->len += len;
}

static void put_number(struct out *o, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        put_byte(o, (uint8_t)(v | 0x80));
    put_byte(o, (uint8_t)v);
}

static void put_difference(struct out *o, uint64_t now, uint64_t before)
{
    put_number(o, lithos_trace_zigzag(now - before));
}

static void put_record(struct out *o, unsigned kind, const void *body, size_t len)
{
    put_byte(o, (uint8_t)(kind << 1));
    put_number(o, len);
    put_bytes(o, body, len);
}

static int string_entry(struct lithos_trace_tables *t, const char *text, struct out *o, uint32_t *ret_entry)
{
    size_t len = text ? strnlen(text, LITHOS_TRACE_STRING_MAX) : 0;

    text = text ? text : "";
    *ret_entry = lithos_intern_find(&t->strings, text, len);
    if (*ret_entry != LITHOS_INTERN_NONE)
        return 0;
    *ret_entry = t->strings.count;
    put_record(o, LITHOS_TRACE_RECORD_STRING, text, len);
    return lithos_intern_add(&t->strings, text, len);
}

static int tpcs_entry(struct lithos_trace_tables *t, const struct lithos_tpcset *set, struct out *o,
                      uint32_t *ret_entry)
{
    uint8_t body[16];

    *ret_entry = lithos_intern_find(&t->tpcs, set, sizeof(*set));
    if (*ret_entry != LITHOS_INTERN_NONE)
        return 0;
    *ret_entry = t->tpcs.count;
    lithos_trace_put64(body, set->w[0]);
    lithos_trace_put64(body + 8, set->w[1]);
    put_record(o, LITHOS_TRACE_RECORD_TPCS, body, sizeof(body));
    return lithos_intern_add(&t->tpcs, set, sizeof(*set));
}

static int shape_entry(struct lithos_trace_tables *t, const struct lithos_trace_kernel *k, struct out *o,
                       uint32_t *ret_entry)
{
    uint8_t buf[10 * LITHOS_TRACE_VARINT_MAX];
    struct out body = {buf, 0};
    struct lithos_trace_shape s = {
        .grid = {k->grid[0], k->grid[1], k->grid[2]},
        .block = {k->block[0], k->block[1], k->block[2]},
        .cluster_blocks = k->cluster_blocks,
        .shared_bytes = k->shared_bytes,
        .registers = k->registers,
    };
    int r = string_entry(t, k->function, o, &s.function);
    if (r < 0)
        return r;
    *ret_entry = lithos_intern_find(&t->shapes, &s, sizeof(s));
    if (*ret_entry != LITHOS_INTERN_NONE)
        return 0;
    *ret_entry = t->shapes.count;
    put_number(&body, s.function);
    for (unsigned i = 0; i < 3; i++)
        put_number(&body, s.grid[i]);
    for (unsigned i = 0; i < 3; i++)
        put_number(&body, s.block[i]);
    put_number(&body, s.cluster_blocks);
    put_number(&body, s.shared_bytes);
    put_number(&body, s.registers);
    put_record(o, LITHOS_TRACE_RECORD_SHAPE, buf, body.len);
    return lithos_trace_tables_add_shape(t, &s);
}

static int lane_entry(struct lithos_trace_tables *t, const struct lithos_trace_kernel *k, struct out *o,
                      uint32_t *ret_entry)
{
    uint8_t buf[4 * LITHOS_TRACE_VARINT_MAX];
    struct out body = {buf, 0};
    const struct lithos_trace_lane l = {
        .tenant = k->tenant, .stream = k->stream, .pid = k->pid, .gpu = k->gpu};

    *ret_entry = lithos_intern_find(&t->lanes, &l, sizeof(l));
    if (*ret_entry != LITHOS_INTERN_NONE)
        return 0;
    *ret_entry = t->lanes.count;
    put_number(&body, l.tenant);
    put_number(&body, l.stream);
    put_number(&body, l.pid);
    put_number(&body, l.gpu);
    put_record(o, LITHOS_TRACE_RECORD_LANE, buf, body.len);
    return lithos_trace_tables_add_lane(t, &l);
}

static int encode_kernel(struct lithos_trace_tables *t, const struct lithos_trace_event *e, struct out *o)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    uint32_t lane = 0, shape = 0, tpcs = 0;
    int r = lane_entry(t, k, o, &lane);
    if (r == 0)
        r = shape_entry(t, k, o, &shape);
    if (r == 0)
        r = tpcs_entry(t, &k->tpcs, o, &tpcs);
    if (r < 0)
        return r;

    const struct lithos_trace_lane_state *l = &t->lane_states[lane];
    const struct lithos_trace_shape_state *s = &t->shape_states[shape];
    uint32_t foreseen = l->shape == LITHOS_INTERN_NONE ? LITHOS_INTERN_NONE : t->shape_states[l->shape].next;
    uint64_t start_ns = lithos_trace_expected_start(l, e->time_ns);
    unsigned has = LITHOS_TRACE_HAS_KERNEL | (lane != t->lane ? LITHOS_TRACE_HAS_LANE : 0) |
                   (shape != foreseen ? LITHOS_TRACE_HAS_SHAPE : 0) |
                   (k->sequence != l->sequence + 1 ? LITHOS_TRACE_HAS_SEQUENCE : 0) |
                   (tpcs != l->tpcs ? LITHOS_TRACE_HAS_TPCS : 0) |
                   (k->flags != l->flags ? LITHOS_TRACE_HAS_FLAGS : 0) |
                   (k->start_ns != start_ns ? LITHOS_TRACE_HAS_START : 0) |
                   (k->predicted_ns ? LITHOS_TRACE_HAS_PREDICTED : 0);

    put_byte(o, (uint8_t)has);
    if (has & LITHOS_TRACE_HAS_LANE)
        put_number(o, lane);
    if (has & LITHOS_TRACE_HAS_SHAPE)
        put_number(o, shape);
    if (has & LITHOS_TRACE_HAS_SEQUENCE)
        put_difference(o, k->sequence, l->sequence + 1);
    if (has & LITHOS_TRACE_HAS_TPCS)
        put_number(o, tpcs);
    if (has & LITHOS_TRACE_HAS_FLAGS)
        put_number(o, k->flags);
    put_difference(o, e->time_ns, l->submit_ns);
    if (has & LITHOS_TRACE_HAS_START)
        put_difference(o, k->start_ns, start_ns);
    put_difference(o, k->end_ns - k->start_ns, s->duration_ns);
    if (has & LITHOS_TRACE_HAS_PREDICTED)
        put_difference(o, k->predicted_ns, s->predicted_ns);
    lithos_trace_tables_note(t, lane, shape, tpcs, e);
    return 0;
}

/* One field into the event's body; what it needs of the tables goes before the event, into o. */
static int put_field(struct lithos_trace_tables *t, const struct lithos_trace_field *f,
                     const struct lithos_trace_event *e, struct out *o, struct out *body)
{
    const void *p = (const char *)e + f->offset;
    uint32_t entry = 0;
    int r = 0;

    switch (f->type) {
    case LITHOS_TRACE_FIELD_U32:
        put_number(body, *(const uint32_t *)p);
        break;
    case LITHOS_TRACE_FIELD_U64:
        put_number(body, *(const uint64_t *)p);
        break;
    case LITHOS_TRACE_FIELD_S64:
        put_number(body, lithos_trace_zigzag(*(const uint64_t *)p));
        break;
    case LITHOS_TRACE_FIELD_STRING:
        r = string_entry(t, *(const char *const *)p, o, &entry);
        put_number(body, entry);
        break;
    case LITHOS_TRACE_FIELD_TPCS:
        r = tpcs_entry(t, p, o, &entry);
        put_number(body, entry);
        break;
    case LITHOS_TRACE_FIELD_UUID:
        put_bytes(body, p, LITHOS_TRACE_UUID_BYTES);
        break;
    }
    return r;
}

static int encode_other(struct lithos_trace_tables *t, const struct lithos_trace_event *e, struct out *o)
{
    uint8_t buf[16 * LITHOS_TRACE_UUID_BYTES];
    struct out body = {buf, 0};

    put_difference(&body, e->time_ns, t->time_ns);
    for (size_t i = 0; i < lithos_trace_field_count; i++) {
        if (lithos_trace_fields[i].kind != e->kind)
            continue;
        int r = put_field(t, &lithos_trace_fields[i], e, o, &body);
        if (r < 0)
            return r;
    }
    put_record(o, LITHOS_TRACE_RECORD_EVENT + (unsigned)e->kind, buf, body.len);
    t->time_ns = e->time_ns;
    return 0;
}

int lithos_trace_encode(struct lithos_trace_tables *t, const struct lithos_trace_event *e, uint8_t *buf,
                        size_t *ret_len)
{
    struct out o = {buf, 0};
    int r = e->kind == LITHOS_TRACE_KERNEL ? encode_kernel(t, e, &o) : encode_other(t, e, &o);

    if (r < 0)
        return r;
    lithos_assert(o.len <= LITHOS_TRACE_ENCODED_MAX);
    *ret_len = o.len;
    return 0;
}
