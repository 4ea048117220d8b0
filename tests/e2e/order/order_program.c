/* Makes programs, and works out what they leave behind. */
#include <string.h>

#include "order.h"

struct maker {
    struct program *p;
    uint64_t state;
    int relay; /* each call waits for the one before, whichever thread made it */
    bool calm; /* nothing that waits, so that much is queued */
    unsigned threads;
    struct {
        int owner;
        int last; /* op, or -1 */
    } cells[CELLS];
    struct {
        int last;
        unsigned thread;
    } streams[STREAMS];
    int event_last[EVENTS], signal_last;
    struct {
        int last; /* op that launched, made or changed it; -1: there is none yet */
        uint32_t p, q;
    } graphs[GRAPHS];
    uint32_t now[CELLS][WORDS];
    uint32_t signal; /* the last that was written */
};

static const char *const names[OP_MAX] = {
    [OP_AXPB] = "axpb",
    [OP_MIX] = "mix",
    [OP_MODULE] = "module",
    [OP_ATTRIBUTE] = "attribute",
    [OP_COPY] = "copy",
    [OP_COPY_2D] = "copy 2D",
    [OP_FROM_PAGEABLE] = "copy from pageable memory",
    [OP_TO_PAGEABLE] = "copy to pageable memory",
    [OP_SET_32] = "set 32",
    [OP_SET_16] = "set 16",
    [OP_SET_8] = "set 8",
    [OP_SET_2D] = "set 2D",
    [OP_WRITE] = "write value",
    [OP_HOST_FUNCTION] = "host function",
    [OP_CALLBACK] = "callback",
    [OP_TEMPORARY] = "temporary memory",
    [OP_GRAPH_MAKE] = "graph made",
    [OP_GRAPH_CHANGE] = "graph changed",
    [OP_GRAPH_LAUNCH] = "graph launch",
    [OP_SYNC_COPY_IN] = "synchronous copy in",
    [OP_SYNC_COPY_OUT] = "synchronous copy out",
    [OP_SYNC_SET] = "synchronous set",
    [OP_REALLOCATE] = "free and allocate",
    [OP_RECORD] = "record",
    [OP_WAIT] = "wait",
    [OP_WAIT_VALUE] = "wait value",
    [OP_SIGNAL] = "signal",
    [OP_RENEW_EVENT] = "new event",
    [OP_RENEW_STREAM] = "new stream",
    [OP_SYNC_EVENT] = "synchronize event",
    [OP_SYNC_STREAM] = "synchronize stream",
    [OP_SYNC_CONTEXT] = "synchronize context",
    [OP_POLL_EVENT] = "poll event",
    [OP_POLL_STREAM] = "poll stream",
    [OP_HOST_WRITE] = "host write",
    [OP_HOST_READ] = "host read",
    [OP_ASK] = "questions",
    [OP_FORK] = "fork",
};

const char *order_op_name(enum kind kind)
{
    return names[kind];
}

/* splitmix64 */
static uint32_t roll(struct maker *m)
{
    uint64_t z = m->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ z >> 31) >> 16);
}

static unsigned below(struct maker *m, unsigned n)
{
    return roll(m) % n;
}

/* ---- calls and what they come after */

static void after(struct maker *m, unsigned op, int other)
{
    struct op *o = &m->p->ops[op];
    if (other < 0 || m->p->ops[other].thread == o->thread)
        return;
    for (unsigned i = 0; i < o->deps_n; i++)
        if (o->deps[i] == other)
            return;
    o->deps[o->deps_n++] = (uint16_t)other;
}

/* Streams change hands now and then; a thread's own never. */
static unsigned thread_of(struct maker *m, unsigned stream)
{
    if (stream > CREATED)
        return stream - CREATED - 1;
    if (below(m, 6) == 0)
        m->streams[stream].thread = below(m, m->threads);
    return m->streams[stream].thread;
}

static unsigned put(struct maker *m, enum kind kind, unsigned thread)
{
    unsigned i = m->p->n++;
    struct op *o = &m->p->ops[i];
    memset(o, 0, sizeof *o);
    o->kind = (uint8_t)kind;
    o->thread = (uint8_t)thread;
    o->how = (uint8_t)roll(m);
    o->p = roll(m) | 1; /* odd: nothing is lost by a multiplication */
    o->q = roll(m);
    if (m->relay && i)
        after(m, i, (int)i - 1);
    return i;
}

static unsigned put_on(struct maker *m, enum kind kind, unsigned stream)
{
    unsigned i = put(m, kind, thread_of(m, stream));
    m->p->ops[i].stream = (uint8_t)stream;
    after(m, i, m->streams[stream].last);
    m->streams[stream].last = (int)i;
    return i;
}

static bool waits_for_default(unsigned stream)
{
    return stream <= BLOCKING || stream > CREATED;
}

/* By the rules of the default stream alone. */
static bool ordered(unsigned from, unsigned to)
{
    return from == to || ((from == 0 || to == 0) && waits_for_default(from) && waits_for_default(to));
}

static unsigned put_event(struct maker *m, unsigned i, unsigned event)
{
    m->p->ops[i].event = (uint8_t)event;
    after(m, i, m->event_last[event]);
    m->event_last[event] = (int)i;
    return i;
}

static unsigned record(struct maker *m, unsigned event, unsigned stream)
{
    return put_event(m, put_on(m, OP_RECORD, stream), event);
}

static void renew_event(struct maker *m, unsigned event)
{
    put_event(m, put(m, OP_RENEW_EVENT, below(m, m->threads)), event);
}

/* What has been called on one stream comes before what will be on the other. */
static void order_streams(struct maker *m, unsigned from, unsigned to)
{
    unsigned event = below(m, EVENTS);
    if (!m->calm && below(m, 4) == 0) {
        unsigned i = put_on(m, OP_SIGNAL, from), value = ++m->signal;
        after(m, i, m->signal_last);
        m->p->ops[i].p = value;
        unsigned w = put_on(m, OP_WAIT_VALUE, to);
        after(m, w, (int)i);
        m->p->ops[w].p = value;
        /* The next value comes when this one has been seen. */
        record(m, event, to);
        put_event(m, put(m, OP_SYNC_EVENT, below(m, m->threads)), event);
        m->signal_last = m->event_last[event];
        return;
    }
    record(m, event, from);
    if (from && from <= CREATED && below(m, 6) == 0) { /* what the old one has to do goes on without it */
        put_on(m, OP_RENEW_STREAM, from);
        put_event(m, put_on(m, OP_WAIT, from), event);
    }
    put_event(m, put_on(m, OP_WAIT, to), event);
    if (below(m, 4) == 0)
        renew_event(m, event);
}

/* What has been called on a stream has ended when the call returns. */
static int wait_for_stream(struct maker *m, unsigned stream)
{
    static const enum kind ways[] = {OP_SYNC_STREAM, OP_POLL_STREAM, OP_SYNC_CONTEXT, OP_SYNC_EVENT,
                                     OP_POLL_EVENT};
    enum kind kind = ways[below(m, 5)];
    unsigned i, event = below(m, EVENTS);
    if (kind == OP_SYNC_EVENT || kind == OP_POLL_EVENT) {
        record(m, event, stream);
        i = put_event(m, put(m, kind, below(m, m->threads)), event);
    } else if (kind == OP_SYNC_CONTEXT) {
        i = put(m, kind, below(m, m->threads));
        after(m, i, m->streams[stream].last);
    } else {
        i = put_on(m, kind, stream);
    }
    return (int)i;
}

/* A cell for a stream, or for the host. */
static void acquire(struct maker *m, unsigned cell, int who)
{
    int from = m->cells[cell].owner;
    if (from == HOST || from == who || (who != HOST && ordered((unsigned)from, (unsigned)who)))
        return;
    if (who == HOST || (!m->calm && below(m, 4) == 0)) {
        m->cells[cell].last = wait_for_stream(m, (unsigned)from);
        m->cells[cell].owner = HOST;
    } else {
        order_streams(m, (unsigned)from, (unsigned)who);
    }
}

static void used(struct maker *m, unsigned cell, int who, unsigned op)
{
    after(m, op, m->cells[cell].last);
    m->cells[cell].owner = who;
    m->cells[cell].last = (int)op;
}

/* ---- what calls do */

static void axpb(uint32_t v[WORDS], uint32_t p, uint32_t q)
{
    for (unsigned i = 0; i < WORDS; i++)
        v[i] = v[i] * p + q + i;
}

static void model(struct maker *m, struct op *o)
{
    uint32_t *a = m->now[o->a], *b = m->now[o->b];
    switch ((enum kind)o->kind) {
    case OP_MIX:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = a[i] * o->p + b[i];
        break;
    case OP_COPY:
    case OP_COPY_2D:
        memcpy(a, b, BYTES);
        break;
    case OP_FROM_PAGEABLE:
    case OP_SYNC_COPY_IN:
    case OP_REALLOCATE:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = o->p + i * o->q;
        break;
    case OP_SET_32:
    case OP_SYNC_SET:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = o->p;
        break;
    case OP_SET_16:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = (o->p & 0xffff) * 0x10001u;
        break;
    case OP_SET_8:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = (o->p & 0xff) * 0x1010101u;
        break;
    case OP_SET_2D:
        for (unsigned i = 0; i < WORDS; i++)
            a[i] = i % (WORDS / 2) < WORDS / 4 ? o->p : a[i];
        break;
    case OP_WRITE:
        a[o->how % WORDS] = o->p;
        break;
    case OP_GRAPH_LAUNCH:
        axpb(a, m->graphs[o->a].p, m->graphs[o->a].q);
        axpb(a, m->graphs[o->a].q | 1, m->graphs[o->a].p);
        break;
    case OP_MODULE:
    case OP_ATTRIBUTE:
        axpb(a, o->p, o->q);
        axpb(a, o->q | 1, o->p);
        break;
    case OP_TO_PAGEABLE:
    case OP_SYNC_COPY_OUT:
    case OP_HOST_READ:
        memcpy(o->expect, a, BYTES);
        break;
    default:
        axpb(a, o->p, o->q);
        break;
    }
}

/* Any stream, the default one more often than another. */
static unsigned any_stream(struct maker *m)
{
    unsigned last = STREAMS - THREADS + m->threads;
    return below(m, 5) == 0 ? 0 : below(m, last);
}

static unsigned on_one_cell(struct maker *m, enum kind kind, unsigned cell, unsigned stream)
{
    acquire(m, cell, (int)stream);
    unsigned i = put_on(m, kind, stream);
    m->p->ops[i].a = m->p->ops[i].b = (uint8_t)cell;
    used(m, cell, (int)stream, i);
    model(m, &m->p->ops[i]);
    return i;
}

static void on_two_cells(struct maker *m, enum kind kind, unsigned stream)
{
    unsigned a = below(m, kind == OP_MIX ? DEVICE_CELLS : CELLS);
    unsigned b = (a + 1 + below(m, DEVICE_CELLS - 1)) % DEVICE_CELLS;
    if (kind != OP_MIX && below(m, 2) && a < DEVICE_CELLS)
        b = DEVICE_CELLS + below(m, PINNED_CELLS);
    acquire(m, a, (int)stream);
    acquire(m, b, (int)stream);
    unsigned i = put_on(m, kind, stream);
    m->p->ops[i].a = (uint8_t)a;
    m->p->ops[i].b = (uint8_t)b;
    used(m, a, (int)stream, i);
    used(m, b, (int)stream, i);
    model(m, &m->p->ops[i]);
}

static void on_host(struct maker *m, enum kind kind)
{
    unsigned cell = DEVICE_CELLS + below(m, PINNED_CELLS);
    acquire(m, cell, HOST);
    unsigned i = put(m, kind, below(m, m->threads));
    m->p->ops[i].a = m->p->ops[i].b = (uint8_t)cell;
    used(m, cell, HOST, i);
    model(m, &m->p->ops[i]);
}

/* Its launches have been called; they need not have run. */
static void change_graph(struct maker *m, unsigned g, bool keep)
{
    unsigned i = put(m, keep ? OP_GRAPH_CHANGE : OP_GRAPH_MAKE, below(m, m->threads));
    m->p->ops[i].a = m->p->ops[i].b = (uint8_t)g;
    m->graphs[g].p = m->p->ops[i].p;
    m->graphs[g].q = m->p->ops[i].q;
    after(m, i, m->graphs[g].last);
    m->graphs[g].last = (int)i;
}

/* Graphs are made and changed while they may be queued. */
static void on_graph(struct maker *m)
{
    unsigned g = below(m, GRAPHS), what = below(m, 6);
    bool made = m->graphs[g].last >= 0;
    if (made && what > 1) {
        unsigned i = on_one_cell(m, OP_GRAPH_LAUNCH, g, any_stream(m));
        after(m, i, m->graphs[g].last);
        m->graphs[g].last = (int)i;
        made = below(m, 3) != 0;
    }
    if (!made || what <= 1)
        change_graph(m, g, m->graphs[g].last >= 0 && what);
}

static bool waits(enum kind kind)
{
    return kind == OP_FROM_PAGEABLE || kind == OP_TO_PAGEABLE || kind == OP_SYNC_COPY_IN ||
           kind == OP_SYNC_COPY_OUT || kind == OP_SYNC_SET || kind == OP_REALLOCATE || kind == OP_MODULE ||
           kind == OP_ATTRIBUTE || kind == OP_HOST_WRITE || kind == OP_HOST_READ;
}

static void add(struct maker *m, bool forks)
{
    static const struct {
        enum kind kind;
        unsigned weight;
    } table[] = {{OP_AXPB, 30},         {OP_MIX, 12},        {OP_COPY, 12},        {OP_COPY_2D, 3},
                 {OP_FROM_PAGEABLE, 3}, {OP_TO_PAGEABLE, 2}, {OP_SET_32, 4},       {OP_SET_16, 3},
                 {OP_SET_8, 3},         {OP_SET_2D, 3},      {OP_WRITE, 4},        {OP_HOST_FUNCTION, 4},
                 {OP_CALLBACK, 2},      {OP_TEMPORARY, 4},   {OP_GRAPH_LAUNCH, 8}, {OP_SYNC_COPY_IN, 2},
                 {OP_SYNC_COPY_OUT, 2}, {OP_SYNC_SET, 2},    {OP_REALLOCATE, 1},   {OP_MODULE, 1},
                 {OP_ATTRIBUTE, 1},     {OP_HOST_WRITE, 2},  {OP_HOST_READ, 2},    {OP_ASK, 4}};
    unsigned sum = 0, at = 0;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(table); i++)
        sum += table[i].weight;
    for (unsigned r = below(m, sum); r >= table[at].weight; at++)
        r -= table[at].weight;
    enum kind kind = table[at].kind;
    if (m->calm && waits(kind) && below(m, 3))
        kind = OP_MIX;
    unsigned device = below(m, DEVICE_CELLS);
    switch (kind) {
    case OP_MIX:
    case OP_COPY:
    case OP_COPY_2D:
        on_two_cells(m, kind, any_stream(m));
        break;
    case OP_HOST_FUNCTION:
    case OP_CALLBACK:
        on_one_cell(m, kind, DEVICE_CELLS + below(m, PINNED_CELLS), any_stream(m));
        break;
    case OP_GRAPH_LAUNCH:
        on_graph(m);
        break;
    case OP_SYNC_COPY_IN:
    case OP_SYNC_COPY_OUT:
    case OP_SYNC_SET:
        on_one_cell(m, kind, device, 0);
        break;
    case OP_REALLOCATE:
        on_one_cell(m, kind, GRAPH_CELLS + below(m, DEVICE_CELLS - GRAPH_CELLS), 0);
        break;
    case OP_HOST_WRITE:
    case OP_HOST_READ:
        on_host(m, kind);
        break;
    case OP_ASK: {
        unsigned i = put(m, forks && below(m, 8) == 0 ? OP_FORK : OP_ASK, below(m, m->threads));
        m->p->ops[i].stream = (uint8_t)(below(m, 1 + BLOCKING)); /* never another thread's own */
        after(m, i, m->streams[m->p->ops[i].stream].last);
        m->streams[m->p->ops[i].stream].last = (int)i;
        break;
    }
    default:
        on_one_cell(m, kind, device, any_stream(m));
        break;
    }
}

void order_make_program(uint64_t seed, unsigned calls, bool forks, struct program *ret_program)
{
    struct maker m = {.p = ret_program, .state = seed * 0xd1342543de82ef95ull + 1, .signal_last = -1};
    m.threads = 1 + below(&m, THREADS);
    m.relay = below(&m, 3) == 0;
    m.calm = below(&m, 2) == 0;
    ret_program->seed = seed;
    ret_program->second_context = seed % 256 == 5; /* few: stamps are for so many contexts of a process */
    ret_program->n = 0;
    for (unsigned c = 0; c < CELLS; c++) {
        m.cells[c].owner = HOST;
        m.cells[c].last = -1;
        for (unsigned i = 0; i < WORDS; i++)
            m.now[c][i] = roll(&m);
    }
    memcpy(ret_program->before, m.now, sizeof m.now);
    for (unsigned s = 0; s < STREAMS; s++) {
        m.streams[s].last = -1;
        m.streams[s].thread = below(&m, m.threads);
    }
    for (unsigned e = 0; e < EVENTS; e++)
        m.event_last[e] = -1;
    for (unsigned g = 0; g < GRAPHS; g++)
        m.graphs[g].last = -1;
    for (unsigned i = 0; i < calls && ret_program->n + 24 < OPS_MAX; i++)
        add(&m, forks);
    memcpy(ret_program->after, m.now, sizeof m.now);
}
