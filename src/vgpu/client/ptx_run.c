/* The interpreter: the threads of a block run in turn, each until a barrier, its end, or its share of steps. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vgpu/client/ptx_internal.h"
#include "vgpu/client/ptx_math.h"

#define SLICE 20000u /* steps of a thread before another gets its turn, so that one may wait for another */
#define TIMER_STEP_NS 32 /* what a reading of a clock takes: a loop that waits for a time ends */

enum thread_state { READY, AT_BARRIER, ENDED };

struct thread {
    uint32_t pc;
    uint8_t state;
    uint16_t tid[3];
    uint64_t steps;
    uint64_t *regs;
};

struct block {
    const struct ptx_entry *entry;
    struct ptx_launch *launch;
    const uint32_t *ctaid;
    uint32_t smid;
    uint8_t *shared;
    uint64_t shared_bytes, dynamic_offset;
    uint64_t timer_reads;
    const struct ptx_range *last; /* hit */
};

static int fail(struct block *b, const struct ptx_instr *in, int code, const char *what, uint64_t value)
{
    snprintf(b->launch->message, sizeof b->launch->message, "line %u: %s %#llx in block %u,%u,%u", in->line,
             what, (unsigned long long)value, b->ctaid[0], b->ctaid[1], b->ctaid[2]);
    return code;
}

/* ---- memory */

static const struct ptx_range *find_range(const struct ptx_memory *m, uint64_t address)
{
    size_t lo = 0, hi = m->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->ranges[mid].address > address)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo ? &m->ranges[lo - 1] : NULL;
}

static uint8_t *translate(struct block *b, enum ptx_space space, uint64_t address, unsigned size)
{
    if (space == PTX_GENERIC && address - PTX_SHARED_WINDOW < b->shared_bytes) {
        space = PTX_SHARED;
        address -= PTX_SHARED_WINDOW;
    }
    if (space == PTX_SHARED)
        return address < b->shared_bytes && size <= b->shared_bytes - address ? b->shared + address : NULL;
    const struct ptx_range *r = b->last;
    if (!r || address - r->address >= r->size)
        r = find_range(b->launch->memory, address);
    if (!r || address - r->address >= r->size || size > r->size - (address - r->address))
        return NULL;
    b->last = r;
    return r->host + (address - r->address);
}

static uint64_t base_address(const struct block *b, const struct thread *t, const struct ptx_operand *o)
{
    switch (o->kind) {
    case PTX_O_REG:
        return t->regs[o->value];
    case PTX_O_GLOBAL:
        return b->launch->globals[o->value];
    case PTX_O_DYNAMIC:
        return b->dynamic_offset;
    default:
        return o->value; /* IMM, SHARED, PARAM */
    }
}

/* Where an instruction's memory operand is: NULL with *ret_error set when nowhere. */
static uint8_t *operand_memory(struct block *b, struct thread *t, const struct ptx_instr *in, unsigned size,
                               int *ret_error)
{
    uint64_t address = base_address(b, t, &in->address) + (uint64_t)in->offset;
    enum ptx_space space = in->space;
    bool shared_name = in->address.kind == PTX_O_SHARED || in->address.kind == PTX_O_DYNAMIC;
    if (space == PTX_GENERIC && shared_name)
        space = PTX_SHARED;
    if (space == PTX_SHARED)
        address &= UINT32_MAX; /* may sit in a 32-bit register */
    if (address % size) {
        *ret_error = fail(b, in, -EILSEQ, "misaligned address", address);
        return NULL;
    }
    uint8_t *p = translate(b, space, address, size);
    if (!p)
        *ret_error = fail(b, in, -EFAULT, "illegal address", address);
    return p;
}

/* Whole words at once: a host that polls pinned memory must not see half of one. */
static uint64_t load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return *p;
    case 2:
        return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
    }
}

static void store(uint8_t *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        __atomic_store_n(p, (uint8_t)v, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)(void *)p, (uint16_t)v, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)(void *)p, (uint32_t)v, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)(void *)p, v, __ATOMIC_RELEASE);
    }
}

/* ---- operands */

static uint64_t timer(struct block *b, const struct thread *t)
{
    return b->launch->start_ns + ++b->timer_reads * TIMER_STEP_NS + t->steps;
}

static uint64_t read_triple(struct block *b, const struct thread *t, unsigned sreg)
{
    const struct ptx_launch *l = b->launch;
    unsigned d = sreg % 3;
    uint32_t c = LITHOS_MAX(l->cluster[d], 1u);
    switch (sreg - d) {
    case PTX_SR_TID:
        return t->tid[d];
    case PTX_SR_NTID:
        return l->block[d];
    case PTX_SR_CTAID:
        return b->ctaid[d];
    case PTX_SR_NCTAID:
        return l->grid[d];
    case PTX_SR_CLUSTERID:
        return b->ctaid[d] / c;
    case PTX_SR_NCLUSTERID:
        return l->grid[d] / c;
    case PTX_SR_CLUSTER_CTAID:
        return b->ctaid[d] % c;
    default:
        return c;
    }
}

static uint64_t read_sreg(struct block *b, const struct thread *t, unsigned sreg)
{
    const struct ptx_launch *l = b->launch;
    const uint32_t *n = l->block;
    uint32_t linear = t->tid[0] + n[0] * (t->tid[1] + n[1] * (uint32_t)t->tid[2]);
    uint32_t c[3] = {LITHOS_MAX(l->cluster[0], 1u), LITHOS_MAX(l->cluster[1], 1u),
                     LITHOS_MAX(l->cluster[2], 1u)};
    switch (sreg) {
    case PTX_SR_SMID:
        return b->smid;
    case PTX_SR_NSMID:
        return l->nsmid;
    case PTX_SR_LANEID:
        return linear % 32;
    case PTX_SR_WARPID:
        return linear / 32;
    case PTX_SR_NWARPID:
        return 64;
    case PTX_SR_GLOBALTIMER:
    case PTX_SR_GLOBALTIMER_LO:
        return timer(b, t);
    case PTX_SR_GLOBALTIMER_HI:
        return timer(b, t) >> 32;
    case PTX_SR_CLOCK:
    case PTX_SR_CLOCK64:
        return timer(b, t) * 2; /* near enough to 2 GHz */
    case PTX_SR_CLUSTER_CTARANK:
        return b->ctaid[0] % c[0] + c[0] * (b->ctaid[1] % c[1] + c[1] * (b->ctaid[2] % c[2]));
    case PTX_SR_CLUSTER_NCTARANK:
        return (uint64_t)c[0] * c[1] * c[2];
    case PTX_SR_DYNAMIC_SMEM:
        return l->shared_dynamic;
    case PTX_SR_GRIDID:
        return 1;
    default:
        return read_triple(b, t, sreg);
    }
}

static uint64_t get(struct block *b, const struct thread *t, const struct ptx_operand *o)
{
    switch (o->kind) {
    case PTX_O_REG:
        return t->regs[o->value];
    case PTX_O_SREG:
        return read_sreg(b, t, (unsigned)o->value);
    case PTX_O_GLOBAL:
        return b->launch->globals[o->value];
    case PTX_O_DYNAMIC:
        return b->dynamic_offset;
    default:
        return o->value;
    }
}

static void put(struct thread *t, const struct ptx_operand *o, uint64_t v)
{
    if (o->kind == PTX_O_REG)
        t->regs[o->value] = v;
}

/* ---- instructions that touch memory */

static int run_ld(struct block *b, struct thread *t, const struct ptx_instr *in)
{
    unsigned size = ptx_size(in->type);
    int error = 0;
    const uint8_t *p;
    if (in->space == PTX_PARAM)
        p = b->launch->params + in->address.value + in->offset;
    else if (!(p = operand_memory(b, t, in, size * in->vector, &error)))
        return error;
    for (unsigned i = 0; i < in->vector; i++) {
        uint64_t v = 0;
        if (in->space == PTX_PARAM)
            memcpy(&v, p + i * size, size);
        else
            v = load(p + i * size, size);
        put(t, &in->o[i], ptx_is_signed(in->type) ? ptx_extend(v, in->type) : v);
    }
    return 0;
}

static int run_st(struct block *b, struct thread *t, const struct ptx_instr *in)
{
    unsigned size = ptx_size(in->type);
    int error = 0;
    uint8_t *p = operand_memory(b, t, in, size * in->vector, &error);
    if (!p)
        return error;
    for (unsigned i = 0; i < in->vector; i++)
        store(p + i * size, size, get(b, t, &in->o[i]));
    return 0;
}

static int run_atom(struct block *b, struct thread *t, const struct ptx_instr *in)
{
    unsigned size = ptx_size(in->type);
    int error = 0;
    uint8_t *p = operand_memory(b, t, in, size, &error);
    if (!p)
        return error;
    uint64_t x = get(b, t, &in->o[1]), y = get(b, t, &in->o[2]);
    uint64_t old = load(p, size);
    store(p, size, ptx_atomic(in->atom, in->type, old, x, y));
    put(t, &in->o[0], old);
    return 0;
}

static void run_cvta(struct block *b, struct thread *t, const struct ptx_instr *in)
{
    uint64_t v = get(b, t, &in->o[1]);
    if (in->space == PTX_SHARED)
        v = in->to_shared ? v - PTX_SHARED_WINDOW : (v & UINT32_MAX) + PTX_SHARED_WINDOW;
    put(t, &in->o[0], v);
}

/* ---- the loop */

/* One instruction: 0 go on, 1 the thread gives up its turn, negative errno. */
static int step(struct block *b, struct thread *t, const struct ptx_instr *in)
{
    t->pc++;
    if (in->predicated && (t->regs[in->predicate] != 0) == in->predicate_not)
        return 0;
    switch (in->op) {
    case PTX_LD:
        return run_ld(b, t, in);
    case PTX_ST:
        return run_st(b, t, in);
    case PTX_ATOM:
        return run_atom(b, t, in);
    case PTX_CVTA:
        run_cvta(b, t, in);
        return 0;
    case PTX_BRA:
        t->pc = in->target;
        return 0;
    case PTX_EXIT:
        t->state = ENDED;
        return 1;
    case PTX_BAR:
        t->state = AT_BARRIER;
        return 1;
    case PTX_NOP:
        return 0;
    default: {
        uint64_t v[3] = {get(b, t, &in->o[1]), get(b, t, &in->o[2]), get(b, t, &in->o[3])};
        put(t, &in->o[0], ptx_compute(in, v));
        return 0;
    }
    }
}

static int run_thread(struct block *b, struct thread *t)
{
    struct ptx_launch *l = b->launch;
    for (unsigned n = 0; n < SLICE; n++) {
        if (t->pc >= b->entry->code_count) {
            t->state = ENDED;
            return 0;
        }
        const struct ptx_instr *in = &b->entry->code[t->pc];
        if (l->budget == 0)
            return fail(b, in, -EOVERFLOW, "more instructions than the virtual GPU interprets: thread",
                        t->tid[0]);
        l->budget--;
        t->steps++;
        int r = step(b, t, in);
        if (r)
            return r < 0 ? r : 0;
    }
    return 0;
}

/* All threads once: how many have not ended, or negative errno. */
static int run_round(struct block *b, struct thread *threads, uint32_t count)
{
    int alive = 0;
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == READY) {
            int r = run_thread(b, &threads[i]);
            if (r)
                return r;
        }
        alive += threads[i].state != ENDED;
        waiting += threads[i].state == AT_BARRIER;
    }
    if (alive && waiting == (uint32_t)alive)
        for (uint32_t i = 0; i < count; i++)
            if (threads[i].state == AT_BARRIER)
                threads[i].state = READY;
    return alive;
}

/* So many bytes, in what is there if that is enough. NULL: no memory. */
static uint8_t *zeroed(struct ptx_scratch *s, size_t size)
{
    if (s->bytes && s->size >= size)
        return memset(s->bytes, 0, size);
    free(s->bytes);
    s->bytes = calloc(1, size);
    s->size = s->bytes ? size : 0;
    return s->bytes;
}

int ptx_run_block(const struct ptx_entry *entry, struct ptx_launch *launch, const uint32_t ctaid[3],
                  uint32_t smid)
{
    uint32_t count = launch->block[0] * launch->block[1] * launch->block[2];
    struct block b = {.entry = entry, .launch = launch, .ctaid = ctaid, .smid = smid};
    b.dynamic_offset = (entry->shared_bytes + 15u) & ~15u;
    b.shared_bytes = b.dynamic_offset + launch->shared_dynamic;
    const size_t regs_at = count * sizeof(struct thread);
    const size_t shared_at = (regs_at + (size_t)count * entry->reg_count * sizeof(uint64_t) + 15) & ~15ull;
    struct ptx_scratch own = {NULL, 0}, *scratch = launch->scratch ? launch->scratch : &own;
    uint8_t *memory = zeroed(scratch, shared_at + LITHOS_MAX(b.shared_bytes, 1u));
    if (!memory)
        return -ENOMEM;
    struct thread *threads = (struct thread *)(void *)memory;
    uint64_t *regs = (uint64_t *)(void *)(memory + regs_at);
    b.shared = memory + shared_at;
    for (uint32_t i = 0; i < count; i++) {
        threads[i].regs = regs + (size_t)i * entry->reg_count;
        threads[i].tid[0] = (uint16_t)(i % launch->block[0]);
        threads[i].tid[1] = (uint16_t)(i / launch->block[0] % launch->block[1]);
        threads[i].tid[2] = (uint16_t)(i / (launch->block[0] * launch->block[1]));
    }
    int r;
    do
        r = run_round(&b, threads, count);
    while (r > 0);
    free(own.bytes);
    return r;
}
