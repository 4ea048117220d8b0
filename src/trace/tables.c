/* The tables and states that writer and reader keep alike, and the names of things. */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "trace/codec.h"
#include "trace/format.h"

_Static_assert(sizeof(struct lithos_trace_shape) == 40 && sizeof(struct lithos_trace_lane) == 24 &&
                   sizeof(struct lithos_tpcset) == 16,
               "keys have no padding");

void lithos_trace_tables_init(struct lithos_trace_tables *t, uint64_t start_ns)
{
    *t = (struct lithos_trace_tables){.start_ns = start_ns};
    lithos_intern_init(&t->strings, LITHOS_TRACE_STRINGS_MAX, LITHOS_TRACE_STRING_BYTES_MAX);
    lithos_intern_init(&t->shapes, LITHOS_TRACE_SHAPES_MAX,
                       LITHOS_TRACE_SHAPES_MAX * (sizeof(struct lithos_trace_shape) + 1));
    lithos_intern_init(&t->lanes, LITHOS_TRACE_LANES_MAX,
                       LITHOS_TRACE_LANES_MAX * (sizeof(struct lithos_trace_lane) + 1));
    lithos_intern_init(&t->tpcs, LITHOS_TRACE_TPCS_MAX,
                       LITHOS_TRACE_TPCS_MAX * (sizeof(struct lithos_tpcset) + 1));
    lithos_trace_tables_reset(t);
}

void lithos_trace_tables_finish(struct lithos_trace_tables *t)
{
    lithos_intern_finish(&t->strings);
    lithos_intern_finish(&t->shapes);
    lithos_intern_finish(&t->lanes);
    lithos_intern_finish(&t->tpcs);
    free(t->shape_states);
    free(t->lane_states);
    t->shape_states = NULL;
    t->lane_states = NULL;
    t->shape_room = t->lane_room = 0;
}

void lithos_trace_tables_reset(struct lithos_trace_tables *t)
{
    lithos_intern_reset(&t->strings);
    lithos_intern_reset(&t->shapes);
    lithos_intern_reset(&t->lanes);
    lithos_intern_reset(&t->tpcs);
    t->time_ns = t->start_ns;
    t->lane = LITHOS_INTERN_NONE;
}

/* Room for a state of `size` bytes for each entry that a table of `entries` may have now. */
static int states_room(void **states, uint32_t *room, uint32_t entries, size_t size)
{
    if (entries <= *room)
        return 0;
    uint32_t more = LITHOS_MAX(*room * 2, 64u);
    void *p = reallocarray(*states, more, size);
    if (!p)
        return -ENOMEM;
    *states = p;
    *room = more;
    return 0;
}

int lithos_trace_tables_add_shape(struct lithos_trace_tables *t, const struct lithos_trace_shape *shape)
{
    void *states = t->shape_states;
    uint32_t n = t->shapes.count;
    int r = states_room(&states, &t->shape_room, n + 1, sizeof(*t->shape_states));

    t->shape_states = states;
    if (r == 0)
        r = lithos_intern_add(&t->shapes, shape, sizeof(*shape));
    if (r == 0)
        t->shape_states[n] = (struct lithos_trace_shape_state){.next = LITHOS_INTERN_NONE};
    return r;
}

int lithos_trace_tables_add_lane(struct lithos_trace_tables *t, const struct lithos_trace_lane *lane)
{
    void *states = t->lane_states;
    uint32_t n = t->lanes.count;
    int r = states_room(&states, &t->lane_room, n + 1, sizeof(*t->lane_states));

    t->lane_states = states;
    if (r == 0)
        r = lithos_intern_add(&t->lanes, lane, sizeof(*lane));
    if (r == 0)
        t->lane_states[n] = (struct lithos_trace_lane_state){
            .shape = LITHOS_INTERN_NONE, .tpcs = LITHOS_INTERN_NONE, .submit_ns = t->start_ns};
    return r;
}

bool lithos_trace_tables_have_room(const struct lithos_trace_tables *t)
{
    return lithos_intern_has_room(&t->strings, 1, LITHOS_TRACE_STRING_MAX) &&
           lithos_intern_has_room(&t->shapes, 1, sizeof(struct lithos_trace_shape)) &&
           lithos_intern_has_room(&t->lanes, 1, sizeof(struct lithos_trace_lane)) &&
           lithos_intern_has_room(&t->tpcs, 1, sizeof(struct lithos_tpcset));
}

uint64_t lithos_trace_expected_start(const struct lithos_trace_lane_state *lane, uint64_t submit_ns)
{
    return LITHOS_MAX(lane->end_ns, submit_ns);
}

void lithos_trace_tables_note(struct lithos_trace_tables *t, uint32_t lane, uint32_t shape, uint32_t tpcs,
                              const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    struct lithos_trace_lane_state *l = &t->lane_states[lane];
    struct lithos_trace_shape_state *s = &t->shape_states[shape];

    if (l->shape != LITHOS_INTERN_NONE)
        t->shape_states[l->shape].next = shape;
    s->duration_ns = k->end_ns - k->start_ns;
    if (k->predicted_ns)
        s->predicted_ns = k->predicted_ns;
    *l = (struct lithos_trace_lane_state){.shape = shape,
                                          .tpcs = tpcs,
                                          .flags = k->flags,
                                          .sequence = k->sequence,
                                          .submit_ns = e->time_ns,
                                          .end_ns = k->end_ns};
    t->lane = lane;
}

const struct lithos_trace_field lithos_trace_fields[] = {
#define X(kind_, field_, type_) \
    {LITHOS_TRACE_##kind_, LITHOS_TRACE_FIELD_##type_, offsetof(struct lithos_trace_event, field_)},
#include "trace/events.def"
#undef X
};
const size_t lithos_trace_field_count = LITHOS_ARRAY_SIZE(lithos_trace_fields);

static int topology_known(const struct lithos_topology *t)
{
    return !lithos_tpcset_empty(&t->valid) || t->sms_per_tpc || t->gpc_stride || t->gpc_count;
}

int lithos_trace_event_validate(const struct lithos_trace_event *e)
{
    if ((unsigned)e->kind >= LITHOS_TRACE_KIND_MAX)
        return -EINVAL;
    if (e->kind == LITHOS_TRACE_GPU && topology_known(&e->gpu.topology))
        return lithos_topology_validate(&e->gpu.topology) < 0 ? -EINVAL : 0;
    return 0;
}

const char *lithos_trace_kind_name(enum lithos_trace_kind kind)
{
    static const char *const names[] = {
        [LITHOS_TRACE_KERNEL] = "kernel", [LITHOS_TRACE_GPU] = "gpu",
        [LITHOS_TRACE_TENANT] = "tenant", [LITHOS_TRACE_TENANT_END] = "tenant_end",
        [LITHOS_TRACE_GRANT] = "grant",   [LITHOS_TRACE_SYNC] = "sync",
        [LITHOS_TRACE_DROP] = "drop",     [LITHOS_TRACE_CLOCK] = "clock",
        [LITHOS_TRACE_ATOM] = "atom",
    };
    _Static_assert(LITHOS_ARRAY_SIZE(names) == LITHOS_TRACE_KIND_MAX, "a name each");

    return (unsigned)kind < LITHOS_TRACE_KIND_MAX ? names[kind] : "unknown";
}

const char *lithos_trace_drop_name(uint32_t reason)
{
    static const char *const names[] = {
        "unknown",      "record_ring",  "stamp_ring", "slot_reused", "no_semaphore",
        "tenant_ended", "graph_replay", "writer",     "invalid",     "stamps_off",
    };
    _Static_assert(LITHOS_ARRAY_SIZE(names) == LITHOS_TRACE_DROP_REASON_MAX, "a name each");

    return names[reason < LITHOS_TRACE_DROP_REASON_MAX ? reason : 0];
}
