#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "trace/codec.h"
#include "trace/format.h"

/* What is left of a record. The first thing wrong is remembered, and from then on every read gives 0. */
struct in {
    const uint8_t *at, *end;
    const char *why;
};

static void fail(struct in *in, const char *why)
{
    if (!in->why)
        in->why = why;
}

static uint64_t take_number(struct in *in)
{
    uint64_t v = 0;

    for (unsigned shift = 0; !in->why; shift += 7) {
        if (in->at == in->end) {
            fail(in, "a number goes beyond its record");
            break;
        }
        uint8_t byte = *in->at++;
        if ((shift == 63 && byte > 1) || (shift && !byte)) {
            fail(in, "a number is too long");
            break;
        }
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return v;
    }
    return 0;
}

static uint32_t take_u32(struct in *in)
{
    uint64_t v = take_number(in);

    if (v > UINT32_MAX)
        fail(in, "a number of 32 bits is too large");
    return in->why ? 0 : (uint32_t)v;
}

static uint64_t take_difference(struct in *in, uint64_t before)
{
    return before + lithos_trace_unzigzag(take_number(in));
}

static const uint8_t *take_bytes(struct in *in, size_t len)
{
    if (!in->why && (size_t)(in->end - in->at) < len)
        fail(in, "bytes go beyond their record");
    if (in->why)
        return NULL;
    in->at += len;
    return in->at - len;
}

/* The number of an entry that the table has. */
static uint32_t take_entry(struct in *in, const struct lithos_intern *table, const char *why)
{
    uint32_t entry = take_u32(in);

    if (!in->why && entry >= table->count)
        fail(in, why);
    return in->why ? 0 : entry;
}

static const char *take_string(struct in *in, const struct lithos_trace_tables *t)
{
    size_t len;
    uint32_t entry = take_entry(in, &t->strings, "a string that was not defined");

    return in->why ? NULL : lithos_intern_get(&t->strings, entry, &len);
}

static void get_tpcs(const struct lithos_trace_tables *t, uint32_t entry, struct lithos_tpcset *ret_set)
{
    size_t len;

    memcpy(ret_set, lithos_intern_get(&t->tpcs, entry, &len), sizeof(*ret_set));
}

/* Errors of a table as errors of the file. */
static int added(struct in *in, int r)
{
    if (r == -EEXIST)
        fail(in, "an entry is defined twice");
    else if (r == -ENOSPC)
        fail(in, "a table has more entries than allowed");
    return r == -ENOMEM ? r : 0;
}

static int decode_string(struct lithos_trace_tables *t, struct in *in)
{
    size_t len = (size_t)(in->end - in->at);
    const uint8_t *text = take_bytes(in, len);

    if (len > LITHOS_TRACE_STRING_MAX)
        fail(in, "a string is too long");
    else if (memchr(text, 0, len))
        fail(in, "a string has a NUL in it");
    return in->why ? 0 : added(in, lithos_intern_add(&t->strings, text, len));
}

static int decode_tpcs(struct lithos_trace_tables *t, struct in *in)
{
    const uint8_t *p = take_bytes(in, sizeof(struct lithos_tpcset));

    if (!p)
        return 0;
    const struct lithos_tpcset set = {{lithos_trace_get64(p), lithos_trace_get64(p + 8)}};
    return added(in, lithos_intern_add(&t->tpcs, &set, sizeof(set)));
}

static int decode_shape(struct lithos_trace_tables *t, struct in *in)
{
    struct lithos_trace_shape s = {.function =
                                       take_entry(in, &t->strings, "a shape's function was not defined")};

    for (unsigned i = 0; i < 3; i++)
        s.grid[i] = take_u32(in);
    for (unsigned i = 0; i < 3; i++)
        s.block[i] = take_u32(in);
    s.cluster_blocks = take_u32(in);
    s.shared_bytes = take_u32(in);
    s.registers = take_u32(in);
    return in->why ? 0 : added(in, lithos_trace_tables_add_shape(t, &s));
}

static int decode_lane(struct lithos_trace_tables *t, struct in *in)
{
    struct lithos_trace_lane l = {.tenant = take_number(in)};

    l.stream = take_number(in);
    l.pid = take_u32(in);
    l.gpu = take_u32(in);
    return in->why ? 0 : added(in, lithos_trace_tables_add_lane(t, &l));
}

static void fill_lane(const struct lithos_trace_tables *t, uint32_t lane, struct lithos_trace_kernel *k)
{
    struct lithos_trace_lane l;
    size_t len;

    memcpy(&l, lithos_intern_get(&t->lanes, lane, &len), sizeof(l));
    k->tenant = l.tenant;
    k->stream = l.stream;
    k->pid = l.pid;
    k->gpu = l.gpu;
}

static void fill_shape(const struct lithos_trace_tables *t, uint32_t shape, struct lithos_trace_kernel *k)
{
    struct lithos_trace_shape s;
    size_t len;

    memcpy(&s, lithos_intern_get(&t->shapes, shape, &len), sizeof(s));
    k->function = lithos_intern_get(&t->strings, s.function, &len);
    memcpy(k->grid, s.grid, sizeof(s.grid));
    memcpy(k->block, s.block, sizeof(s.block));
    k->cluster_blocks = s.cluster_blocks;
    k->shared_bytes = s.shared_bytes;
    k->registers = s.registers;
}

static uint32_t take_lane(struct lithos_trace_tables *t, struct in *in, unsigned has)
{
    uint32_t lane = t->lane;

    if (has & LITHOS_TRACE_HAS_LANE)
        lane = take_entry(in, &t->lanes, "a lane that was not defined");
    else if (lane == LITHOS_INTERN_NONE)
        fail(in, "a kernel in the same lane as none");
    return lane;
}

static uint32_t take_shape(struct lithos_trace_tables *t, struct in *in, unsigned has, uint32_t last)
{
    if (has & LITHOS_TRACE_HAS_SHAPE)
        return take_entry(in, &t->shapes, "a shape that was not defined");
    uint32_t shape = last == LITHOS_INTERN_NONE ? last : t->shape_states[last].next;
    if (shape == LITHOS_INTERN_NONE)
        fail(in, "a kernel of the shape after none");
    return shape;
}

static uint32_t take_tpcs(struct lithos_trace_tables *t, struct in *in, unsigned has, uint32_t last)
{
    if (has & LITHOS_TRACE_HAS_TPCS)
        return take_entry(in, &t->tpcs, "a TPC set that was not defined");
    if (last == LITHOS_INTERN_NONE)
        fail(in, "a kernel on the same TPCs as none");
    return last;
}

static void decode_kernel(struct lithos_trace_tables *t, struct in *in, unsigned has,
                          struct lithos_trace_event *e)
{
    struct lithos_trace_kernel *k = &e->kernel;
    uint32_t lane = take_lane(t, in, has);
    if (in->why)
        return;
    const struct lithos_trace_lane_state *l = &t->lane_states[lane];
    uint32_t shape = take_shape(t, in, has, l->shape);
    if (in->why)
        return;
    const struct lithos_trace_shape_state *s = &t->shape_states[shape];

    k->sequence = l->sequence + 1;
    if (has & LITHOS_TRACE_HAS_SEQUENCE)
        k->sequence = take_difference(in, k->sequence);
    uint32_t tpcs = take_tpcs(t, in, has, l->tpcs);
    k->flags = has & LITHOS_TRACE_HAS_FLAGS ? take_u32(in) : l->flags;
    e->time_ns = take_difference(in, l->submit_ns);
    k->start_ns = lithos_trace_expected_start(l, e->time_ns);
    if (has & LITHOS_TRACE_HAS_START)
        k->start_ns = take_difference(in, k->start_ns);
    k->end_ns = k->start_ns + take_difference(in, s->duration_ns);
    if (has & LITHOS_TRACE_HAS_PREDICTED)
        k->predicted_ns = take_difference(in, s->predicted_ns);
    if (in->why)
        return;
    fill_lane(t, lane, k);
    fill_shape(t, shape, k);
    get_tpcs(t, tpcs, &k->tpcs);
    lithos_trace_tables_note(t, lane, shape, tpcs, e);
}

static void take_field(struct lithos_trace_tables *t, struct in *in, const struct lithos_trace_field *f,
                       struct lithos_trace_event *e)
{
    void *p = (char *)e + f->offset;
    const uint8_t *bytes;
    uint32_t entry;

    switch (f->type) {
    case LITHOS_TRACE_FIELD_U32:
        *(uint32_t *)p = take_u32(in);
        break;
    case LITHOS_TRACE_FIELD_U64:
        *(uint64_t *)p = take_number(in);
        break;
    case LITHOS_TRACE_FIELD_S64:
        *(uint64_t *)p = lithos_trace_unzigzag(take_number(in));
        break;
    case LITHOS_TRACE_FIELD_STRING:
        *(const char **)p = take_string(in, t);
        break;
    case LITHOS_TRACE_FIELD_TPCS:
        entry = take_entry(in, &t->tpcs, "a TPC set that was not defined");
        if (!in->why)
            get_tpcs(t, entry, p);
        break;
    case LITHOS_TRACE_FIELD_UUID:
        bytes = take_bytes(in, LITHOS_TRACE_UUID_BYTES);
        if (bytes)
            memcpy(p, bytes, LITHOS_TRACE_UUID_BYTES);
        break;
    }
}

/* Fields that an older writer did not know stay 0 (strings: ""). */
static void decode_other(struct lithos_trace_tables *t, struct in *in, struct lithos_trace_event *e)
{
    e->time_ns = take_difference(in, t->time_ns);
    for (size_t i = 0; i < lithos_trace_field_count; i++) {
        const struct lithos_trace_field *f = &lithos_trace_fields[i];
        if (f->kind != e->kind)
            continue;
        if (f->type == LITHOS_TRACE_FIELD_STRING)
            *(const char **)((char *)e + f->offset) = "";
        if (in->at < in->end)
            take_field(t, in, f, e);
    }
    if (in->why)
        return;
    if (lithos_trace_event_validate(e) < 0)
        fail(in, "a GPU's topology is not valid");
    t->time_ns = e->time_ns;
}

static int decode_body(struct lithos_trace_tables *t, struct in *in, unsigned kind,
                       struct lithos_trace_event *e, int *ret_what)
{
    *ret_what = LITHOS_TRACE_DECODED_TABLE;
    switch (kind) {
    case LITHOS_TRACE_RECORD_STRING:
        return decode_string(t, in);
    case LITHOS_TRACE_RECORD_SHAPE:
        return decode_shape(t, in);
    case LITHOS_TRACE_RECORD_LANE:
        return decode_lane(t, in);
    case LITHOS_TRACE_RECORD_TPCS:
        return decode_tpcs(t, in);
    default:
        break;
    }
    if (kind <= LITHOS_TRACE_RECORD_EVENT || kind >= LITHOS_TRACE_RECORD_EVENT + LITHOS_TRACE_KIND_MAX) {
        *ret_what = LITHOS_TRACE_DECODED_OTHER;
        return 0;
    }
    *ret_what = LITHOS_TRACE_DECODED_EVENT;
    e->kind = kind - LITHOS_TRACE_RECORD_EVENT;
    decode_other(t, in, e);
    return 0;
}

int lithos_trace_decode(struct lithos_trace_tables *t, const uint8_t **at, const uint8_t *end,
                        struct lithos_trace_event *ret_event, const char **ret_why)
{
    struct in in = {*at + 1, end, NULL};
    struct lithos_trace_event e = {.kind = LITHOS_TRACE_KERNEL};
    int r = 0, what = LITHOS_TRACE_DECODED_EVENT;
    unsigned first = **at;

    if (first & LITHOS_TRACE_HAS_KERNEL) {
        decode_kernel(t, &in, first, &e);
    } else {
        size_t len = take_number(&in);
        const uint8_t *body = take_bytes(&in, len);
        struct in inner = {body, body ? body + len : NULL, in.why};
        if (!in.why)
            r = decode_body(t, &inner, first >> 1, &e, &what);
        in.why = inner.why;
    }
    if (r < 0)
        return r;
    if (in.why) {
        *ret_why = in.why;
        return -EBADMSG;
    }
    *at = in.at;
    if (what == LITHOS_TRACE_DECODED_EVENT)
        *ret_event = e;
    return what;
}
