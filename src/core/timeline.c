#include "core/timeline.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "core/timeline_internal.h"

#define ENTRIES_MAX (1u << 20)
/* The end of a wait may be heard of before the stamps of what was waited for can be seen. */
#define VISIBLE_NS (100 * LITHOS_NSEC_PER_USEC)
/* A GPU's time that is older than the one before by more than that, which no replay takes, was set back. */
#define SET_BACK_NS (10 * LITHOS_NSEC_PER_SEC)
#define NONE LITHOS_TIMELINE_NONE
#define PPM 1000000u

/* ---- memory ---- */

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static uint32_t buckets_for(uint32_t streams)
{
    uint32_t n = 16;
    while (n < streams)
        n *= 2;
    return n;
}

static bool bound_ok(uint32_t n)
{
    return n > 0 && n <= ENTRIES_MAX;
}

int lithos_timeline_size(const struct lithos_timeline_config *c, size_t *ret_bytes)
{
    if (!bound_ok(c->launches) || !bound_ok(c->streams) || !bound_ok(c->operators) || c->gpu_count == 0 ||
        c->gpu_count > LITHOS_TIMELINE_GPUS)
        return -EINVAL;
    *ret_bytes = aligned(sizeof(struct lithos_timeline)) +
                 aligned(c->launches * sizeof(struct timeline_slot)) +
                 aligned(c->streams * sizeof(struct timeline_stream)) +
                 aligned(buckets_for(c->streams) * sizeof(uint32_t)) +
                 aligned(c->operators * sizeof(struct lithos_timeline_operator));
    return 0;
}

int lithos_timeline_init(void *mem, size_t bytes, const struct lithos_timeline_config *c,
                         struct lithos_timeline **ret_timeline)
{
    size_t need;
    int r = lithos_timeline_size(c, &need);
    if (r < 0 || bytes < need)
        return r < 0 ? r : -ENOSPC;
    char *at = mem;
    struct lithos_timeline *tl = mem;
    memset(tl, 0, sizeof *tl);
    tl->config = *c;
    at += aligned(sizeof *tl);
    tl->slots = (void *)at;
    at += aligned(c->launches * sizeof(struct timeline_slot));
    tl->streams = (void *)at;
    at += aligned(c->streams * sizeof(struct timeline_stream));
    tl->buckets = (void *)at;
    tl->bucket_count = buckets_for(c->streams);
    at += aligned(tl->bucket_count * sizeof(uint32_t));
    tl->operators = (void *)at;
    memset(tl->buckets, 0xff, tl->bucket_count * sizeof(uint32_t));
    tl->free_slot = tl->free_stream = tl->active = NONE;
    for (uint32_t g = 0; g < c->gpu_count; g++) {
        lithos_clockmap_init(&tl->gpu[g].clock, c->gpu[g].drift_max_ppb);
        if (c->gpu[g].drift_known)
            lithos_clockmap_expect(&tl->gpu[g].clock, c->gpu[g].drift_ppb);
        tl->gpu[g].last_stream[0] = tl->gpu[g].last_stream[1] = NONE;
    }
    *ret_timeline = tl;
    return 0;
}

/* ---- streams ---- */

static uint32_t *bucket_of(struct lithos_timeline *tl, uint32_t process, uint32_t gpu, uint64_t stream)
{
    uint64_t h = (stream ^ (uint64_t)process << 40 ^ (uint64_t)gpu << 56) * 0x9e3779b97f4a7c15ull;
    return &tl->buckets[(h >> 32) & (tl->bucket_count - 1)];
}

static void stream_free(struct lithos_timeline *tl, uint32_t index)
{
    struct timeline_stream *s = &tl->streams[index];
    timeline_cut_ends(tl, index, LITHOS_LOST_MISSING);
    uint32_t *link = bucket_of(tl, s->process, s->gpu, s->handle);
    while (*link != index)
        link = &tl->streams[*link].next;
    *link = s->next;
    s->used = false;
    s->next = tl->free_stream;
    tl->free_stream = index;
    struct timeline_gpu *g = &tl->gpu[s->gpu];
    for (int i = 0; i < 2; i++) /* its last end still counts; its number is another's from now on */
        if (g->last_stream[i] == index)
            g->last_stream[i] = NONE;
}

/* The idle stream unused for longest makes room. */
static uint32_t stream_evict(struct lithos_timeline *tl)
{
    uint32_t oldest = NONE;
    for (uint32_t i = 0; i < tl->stream_high; i++) {
        const struct timeline_stream *s = &tl->streams[i];
        if (s->used && s->head == NONE && (oldest == NONE || s->used_ns < tl->streams[oldest].used_ns))
            oldest = i;
    }
    if (oldest == NONE)
        return NONE;
    stream_free(tl, oldest);
    tl->free_stream = tl->streams[oldest].next;
    return oldest;
}

static uint32_t stream_get(struct lithos_timeline *tl, const struct lithos_timeline_launch *l)
{
    uint32_t *bucket = bucket_of(tl, l->process, l->gpu, l->stream), index;
    for (index = *bucket; index != NONE; index = tl->streams[index].next) {
        const struct timeline_stream *s = &tl->streams[index];
        if (s->handle == l->stream && s->process == l->process && s->gpu == l->gpu)
            return index;
    }
    if (tl->free_stream != NONE) {
        index = tl->free_stream;
        tl->free_stream = tl->streams[index].next;
    } else if (tl->stream_high < tl->config.streams) {
        index = tl->stream_high++;
    } else if ((index = stream_evict(tl)) == NONE) {
        return NONE;
    }
    tl->streams[index] = (struct timeline_stream){.used = true,
                                                  .process = l->process,
                                                  .gpu = l->gpu,
                                                  .handle = l->stream,
                                                  .head = NONE,
                                                  .tail = NONE,
                                                  .next = *bucket};
    *bucket = index;
    return index;
}

static void activate(struct lithos_timeline *tl, uint32_t index)
{
    struct timeline_stream *s = &tl->streams[index];
    s->before = NONE;
    s->after = tl->active;
    if (tl->active != NONE)
        tl->streams[tl->active].before = index;
    tl->active = index;
}

static void deactivate(struct lithos_timeline *tl, uint32_t index)
{
    const struct timeline_stream *s = &tl->streams[index];
    if (s->before == NONE)
        tl->active = s->after;
    else
        tl->streams[s->before].after = s->after;
    if (s->after != NONE)
        tl->streams[s->after].before = s->before;
}

static uint32_t kernels_of(const struct lithos_timeline_launch *l)
{
    return LITHOS_MAX(l->kernels, 1u);
}

static void pop(struct lithos_timeline *tl, uint32_t index)
{
    struct timeline_stream *s = &tl->streams[index];
    uint32_t slot = s->head;
    s->head = tl->slots[slot].next;
    s->behind_since_ns = 0;
    tl->stats.outstanding -= tl->slots[slot].ends ? kernels_of(&tl->slots[slot].launch) : 0;
    tl->stats.gpu_outstanding[s->gpu] -= tl->slots[slot].ends;
    tl->slots[slot].next = tl->free_slot;
    tl->free_slot = slot;
    if (s->head == NONE) {
        s->tail = NONE;
        deactivate(tl, index);
    }
}

static void lose(struct lithos_timeline *tl, uint32_t index, enum lithos_timeline_lost why)
{
    struct timeline_stream *s = &tl->streams[index];
    const struct timeline_slot *slot = &tl->slots[s->head];
    if (!slot->launch.atoms || timeline_join_lost(s, slot, why, &why))
        tl->stats.lost[why] += kernels_of(&slot->launch);
    s->gap = true;
    pop(tl, index);
}

/* ---- launches in ---- */

static uint32_t slot_new(struct lithos_timeline *tl)
{
    if (tl->free_slot != NONE) {
        uint32_t slot = tl->free_slot;
        tl->free_slot = tl->slots[slot].next;
        return slot;
    }
    return tl->slot_high < tl->config.launches ? tl->slot_high++ : NONE;
}

/* No place or no stamp for a launch, or for an atom: then for its launch. */
static bool refuse(struct lithos_timeline *tl, uint32_t index, const struct lithos_timeline_launch *l,
                   enum lithos_timeline_lost why)
{
    if (l->atom == 0)
        tl->stats.lost[why] += kernels_of(l);
    if (index == NONE)
        return false;
    struct timeline_stream *s = &tl->streams[index];
    s->gap = true;
    s->cut_atoms = l->atom ? l->atoms : 0; /* also when this was to be its last */
    timeline_cut_ends(tl, index, why);
    return false;
}

bool lithos_timeline_submit(struct lithos_timeline *tl, const struct lithos_timeline_launch *l)
{
    struct lithos_timeline_launch launch = *l;
    launch.gpu = LITHOS_MIN(l->gpu, tl->config.gpu_count - 1);
    uint32_t index = stream_get(tl, &launch);
    if (l->atom == 0) {
        tl->stats.launches += kernels_of(l);
        timeline_count_submit(tl, l->submit_ns, kernels_of(l));
        if (index != NONE) {
            timeline_cut_ends(tl, index, LITHOS_LOST_MISSING);
            timeline_cut_begins(&tl->streams[index], l);
        }
    } else if (index == NONE || !timeline_cut_goes_on(tl, index, l)) {
        return false; /* with its launch, which is counted as lost */
    }
    if (index != NONE && !launch.stamp && !launch.atoms)
        return refuse(tl, index, l, LITHOS_MIN(launch.lost, LITHOS_LOST_OFF));
    uint32_t slot = index == NONE ? NONE : slot_new(tl);
    if (slot == NONE)
        return refuse(tl, index, l, LITHOS_LOST_NO_ROOM);
    struct timeline_stream *s = &tl->streams[index];
    tl->slots[slot] = (struct timeline_slot){
        .next = NONE, .after_gap = s->gap, .ends = l->atom + 1 >= l->atoms, .launch = launch};
    s->gap = false;
    s->used_ns = l->submit_ns;
    tl->stats.outstanding += l->atom == 0 ? kernels_of(l) : 0;
    tl->stats.gpu_outstanding[s->gpu] += l->atom == 0;
    if (s->head == NONE) {
        s->head = slot;
        activate(tl, index);
    } else {
        tl->slots[s->tail].next = slot;
    }
    s->tail = slot;
    return true;
}

/* ---- ends ---- */

/* A card whose time runs slower than the host's takes that much longer to start a kernel too. */
static uint64_t reaches_card_ns(const struct lithos_timeline *tl, const struct lithos_timeline_launch *l)
{
    const struct lithos_clockmap *clock = &tl->gpu[l->gpu].clock;
    double latency_ns = (double)tl->config.gpu[l->gpu].launch_latency_ns;
    return l->submit_ns + l->call_ns +
           (uint64_t)(clock->fitted && clock->rate < 1e6 ? latency_ns * clock->rate : latency_ns);
}

static uint64_t possible_start_ns(const struct lithos_timeline *tl, const struct timeline_stream *s,
                                  const struct lithos_timeline_launch *l)
{
    return LITHOS_MAX(s->end_ns, reaches_card_ns(tl, l));
}

/* The first wait that was over after the launch had ended; NULL: none was. Launches come in order. */
static const struct timeline_wait *wait_over(struct timeline_stream *s, uint64_t sequence)
{
    uint32_t before = 0;
    while (before < s->wait_count && s->waits[before].sequence <= sequence)
        before++;
    s->wait_count -= before;
    if (before)
        memmove(s->waits, s->waits + before, s->wait_count * sizeof *s->waits);
    return s->wait_count ? s->waits : NULL;
}

/* Does the stamp of a graph's node show an end since that of the replay before? */
static bool is_newer(const struct lithos_timeline_launch *l, uint64_t gpu_ns)
{
    const uint64_t before_ns = l->before_end_ns ? *l->before_end_ns : 0;
    return gpu_ns > before_ns || before_ns - gpu_ns > SET_BACK_NS;
}

/* Is the end that a graph's node shows that of a later replay? The program had waited for this one before then. Not asked of a clock that may run at
 * any rate, or whose rate is not known yet: it may be off by more than its bound. */
static bool is_overtaken(const struct lithos_timeline *tl, const struct timeline_wait *wait,
                         const struct lithos_timeline_launch *l, uint64_t gpu_ns)
{
    const struct lithos_clockmap *clock = &tl->gpu[l->gpu].clock;
    uint64_t end_ns;
    return wait && clock->slope_known && lithos_clockmap_host(clock, gpu_ns, &end_ns) &&
           end_ns > wait->until_ns + lithos_clockmap_bound_ns(clock);
}

/* Read the stamp of a stream's head, once. */
static bool head_done(struct lithos_timeline *tl, uint32_t index, uint64_t now_ns, lithos_timeline_read *read,
                      void *ctx)
{
    for (;;) {
        struct timeline_stream *s = &tl->streams[index];
        if (s->head == NONE)
            return false;
        struct timeline_slot *slot = &tl->slots[s->head];
        if (slot->done)
            return true;
        const struct lithos_timeline_launch *l = &slot->launch;
        if (!l->stamp) { /* an atom */
            lose(tl, index, LITHOS_MIN(l->lost, LITHOS_LOST_OFF));
            continue;
        }
        uint64_t gpu_ns, seen_ns = now_ns;
        int r = read(ctx, l->process, l->stamp, &gpu_ns, &seen_ns);
        bool node = l->flags & LITHOS_KERNEL_GRAPH_NODE;
        const struct timeline_wait *wait = node ? wait_over(s, l->sequence) : NULL;
        if (node && r == 1 && is_overtaken(tl, wait, l, gpu_ns)) {
            lose(tl, index, LITHOS_LOST_REPLAY);
            continue;
        }
        if (r == 1 && (!node || is_newer(l, gpu_ns))) {
            slot->done = true;
            slot->gpu_end_ns = gpu_ns;
            struct timeline_gpu *g = &tl->gpu[l->gpu];
            slot->seen_ns = seen_ns;
            bool jump = lithos_clockmap_observe(&g->clock, l->submit_ns, gpu_ns, seen_ns);
            tl->stats.clock_jumps += jump;
            if (!lithos_clockmap_host(&g->clock, gpu_ns, &slot->end_ns))
                slot->end_ns = seen_ns;
            slot->end_ns = LITHOS_MIN(LITHOS_MAX(slot->end_ns, l->submit_ns), seen_ns);
            return true;
        }
        if (r < 0) {
            lose(tl, index, node ? LITHOS_LOST_REPLAY : LITHOS_LOST_OVERWRITTEN);
            continue;
        }
        /* It was taken for done by the end of the one before, whose own end nobody had read in time. */
        if (wait && now_ns - wait->heard_ns >= VISIBLE_NS) {
            lose(tl, index, LITHOS_LOST_REPLAY);
            continue;
        }
        if (node && now_ns > l->submit_ns && now_ns - l->submit_ns > tl->config.replay_ns &&
            now_ns - s->end_ns > tl->config.replay_ns) {
            lose(tl, index, LITHOS_LOST_REPLAY);
            continue;
        }
        return false;
    }
}

/* Has the launch behind a head that is not done ended all the same? Its own stamp will not come then. */
static bool head_missing(struct lithos_timeline *tl, uint32_t index, uint64_t now_ns,
                         lithos_timeline_read *read, void *ctx)
{
    struct timeline_stream *s = &tl->streams[index];
    uint32_t second = tl->slots[s->head].next;
    uint64_t gpu_ns, seen_ns;
    while (second != NONE &&
           tl->slots[second].launch.atom) /* they may end before the one they overlap with */
        second = tl->slots[second].next;
    if (second == NONE || tl->slots[s->head].launch.flags & LITHOS_KERNEL_GRAPH_NODE)
        return false;
    const struct lithos_timeline_launch *l = &tl->slots[second].launch;
    if (l->flags & LITHOS_KERNEL_GRAPH_NODE)
        return false;
    if (!s->behind_since_ns && read(ctx, l->process, l->stamp, &gpu_ns, &seen_ns) != 0)
        s->behind_since_ns = now_ns;
    return s->behind_since_ns && now_ns - s->behind_since_ns >= tl->config.missing_ns;
}

/* Did another stream of the tenant run on the GPU between these times? All ends before end_ns are known. */
static bool overlapped(const struct lithos_timeline *tl, uint32_t index, uint64_t start_ns, uint64_t end_ns)
{
    uint32_t gpu = tl->streams[index].gpu;
    const struct timeline_gpu *g = &tl->gpu[gpu];
    for (int i = 0; i < 2; i++)
        if (g->last_end_ns[i] > start_ns && g->last_stream[i] != index)
            return true;
    for (uint32_t o = tl->active; o != NONE; o = tl->streams[o].after) {
        const struct timeline_stream *s = &tl->streams[o];
        if (o != index && s->gpu == gpu && possible_start_ns(tl, s, &tl->slots[s->head].launch) < end_ns)
            return true;
    }
    return false;
}

/* The two latest ends, of two streams. */
static void remember_end(struct timeline_gpu *g, uint32_t index, uint64_t end_ns)
{
    if (g->last_stream[0] != index) {
        g->last_stream[1] = g->last_stream[0];
        g->last_end_ns[1] = g->last_end_ns[0];
    }
    g->last_stream[0] = index;
    g->last_end_ns[0] = end_ns;
}

static void finish_head(struct lithos_timeline *tl, uint32_t index, uint64_t now_ns,
                        lithos_timeline_emit *emit, void *ctx)
{
    struct timeline_stream *s = &tl->streams[index];
    struct timeline_slot *slot = &tl->slots[s->head];
    const struct lithos_timeline_launch *l = &slot->launch;
    struct timeline_gpu *g = &tl->gpu[l->gpu];
    uint64_t mapped_ns, before_ns = s->end_ns, possible_ns, seen_ns = slot->seen_ns;
    struct lithos_kernel_event e = {.launch = l, .gpu_end_ns = slot->gpu_end_ns, .flags = l->flags};

    /* By the line as it is now, and so is the end before it: their difference is the GPU's own. */
    e.end_ns = slot->end_ns;
    if (lithos_clockmap_host(&g->clock, slot->gpu_end_ns, &mapped_ns))
        e.end_ns = LITHOS_MIN(LITHOS_MAX(mapped_ns, l->submit_ns), seen_ns);
    else
        mapped_ns = seen_ns;
    if (s->gpu_end_ns && lithos_clockmap_host(&g->clock, s->gpu_end_ns, &before_ns))
        before_ns = LITHOS_MIN(before_ns, seen_ns);
    /* No kernel is shorter than the turn to it for our sake. */
    if (before_ns + 2 * tl->config.gpu[l->gpu].turn_ns <= e.end_ns)
        before_ns += tl->config.gpu[l->gpu].turn_ns;
    if (e.end_ns != mapped_ns || !g->clock.fitted)
        e.flags |= LITHOS_KERNEL_CLAMPED;
    possible_ns = reaches_card_ns(tl, l);
    e.start_ns = LITHOS_MAX(before_ns, possible_ns);
    if (e.start_ns > e.end_ns && l->atom) {
        e.start_ns = e.end_ns; /* it overlapped with the atom before, and that ended after it */
    } else if (e.start_ns > e.end_ns) {
        e.start_ns = LITHOS_MAX(l->submit_ns, LITHOS_MIN(before_ns, e.end_ns));
        e.start_ns = LITHOS_MIN(e.start_ns, e.end_ns);
        e.flags |= LITHOS_KERNEL_CLAMPED;
    }
    e.busy_ns = e.end_ns - e.start_ns;
    if (l->kernels > 1 && l->busy_ppm)
        e.busy_ns = (uint64_t)((unsigned __int128)e.busy_ns * LITHOS_MIN(l->busy_ppm, PPM) / PPM);
    if (slot->after_gap)
        e.flags |= LITHOS_KERNEL_AFTER_GAP;
    if (!l->atom || e.end_ns > s->end_ns) {
        s->end_ns = e.end_ns;
        s->gpu_end_ns = slot->gpu_end_ns;
    }
    s->used_ns = now_ns;
    if (overlapped(tl, index, e.start_ns, e.end_ns))
        e.flags |= LITHOS_KERNEL_OVERLAPPED;
    remember_end(g, index, e.end_ns);
    if (l->atoms && tl->config.atom)
        tl->config.atom(ctx, &e);
    enum timeline_joined joined = l->atoms ? timeline_join(tl, index, slot, &e) : TIMELINE_JOIN_ENDED;
    if (joined == TIMELINE_JOIN_ENDED) {
        timeline_count_kernel(tl, &e);
        emit(ctx, &e);
    } else if (joined == TIMELINE_JOIN_LOST) {
        tl->stats.lost[s->join_lost - 1]++;
    }
    pop(tl, index);
}

unsigned lithos_timeline_poll(struct lithos_timeline *tl, uint64_t now_ns, lithos_timeline_read *read,
                              lithos_timeline_emit *emit, void *ctx)
{
    unsigned ended = 0;
    for (;;) {
        uint32_t first = NONE, after;
        for (uint32_t i = tl->active; i != NONE; i = after) {
            after = tl->streams[i].after;
            if (!head_done(tl, i, now_ns, read, ctx)) {
                while (tl->streams[i].head != NONE && head_missing(tl, i, now_ns, read, ctx))
                    lose(tl, i, LITHOS_LOST_MISSING);
                if (!head_done(tl, i, now_ns, read, ctx))
                    continue;
            }
            if (first == NONE ||
                tl->slots[tl->streams[i].head].end_ns < tl->slots[tl->streams[first].head].end_ns)
                first = i;
        }
        if (first == NONE)
            return ended;
        finish_head(tl, first, now_ns, emit, ctx);
        ended++;
    }
}

void lithos_timeline_waited(struct lithos_timeline *tl, uint32_t process, uint64_t stream, bool all,
                            uint64_t sequence, uint64_t until_ns, uint64_t now_ns)
{
    for (uint32_t i = tl->active; i != NONE; i = tl->streams[i].after) {
        struct timeline_stream *s = &tl->streams[i];
        if (s->process != process || (!all && s->handle != stream))
            continue;
        wait_over(s, tl->slots[s->head].launch.sequence);
        if (s->wait_count && sequence <= s->waits[s->wait_count - 1].sequence)
            continue;
        s->wait_count -=
            s->wait_count == TIMELINE_WAITS; /* the last one: this one says as much of what came before it */
        s->waits[s->wait_count++] = (struct timeline_wait){sequence, until_ns, now_ns};
    }
}

void lithos_timeline_forget(struct lithos_timeline *tl, uint32_t process)
{
    for (uint32_t i = 0; i < tl->stream_high; i++) {
        if (!tl->streams[i].used || tl->streams[i].process != process)
            continue;
        timeline_cut_ends(tl, i, LITHOS_LOST_DIED);
        while (tl->streams[i].head != NONE)
            lose(tl, i, LITHOS_LOST_DIED);
        stream_free(tl, i);
    }
}
