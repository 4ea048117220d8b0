/* What is known of a process's operators: how long a wave of each takes, and what cutting it costs. */
#include <string.h>

#include "base/util.h"
#include "core/atoms.h"

#define WINDOW 8u
#define TRIAL_WHOLE 3u
#define TRIAL_CUT 5u
/* A trial that has not come to an end after so many launches is given up: nothing was fair. */
#define TRIAL_LAUNCHES 512u
#define AGAIN_FIRST 1024u
#define AGAIN_MOST 65536u
/* Atoms are made longer at most so often, each time by two. */
#define COARSER_MOST 6u
/* A prediction that has moved by less than this part is not told again. */
#define TOLD_PART 8u

enum phase {
    PHASE_LEARN, /* whole for a reason that lies in its length or grid, or not planned yet */
    PHASE_TRIAL, /* cut, and left whole now and then */
    PHASE_SETTLED,
};

struct samples {
    float ns[WINDOW];
    uint32_t next, count;
};

struct atom_operator {
    uint64_t key; /* 0: free */
    uint64_t blocks;
    uint32_t blocks_per_sm, used;
    struct samples wave; /* of a wave: what a plan is made from */
    struct samples whole, cut;
    uint8_t phase, coarser;
    bool slower;
    uint32_t launches; /* in this phase */
    uint32_t again;    /* launches until the next trial */
    struct lithos_atom_choice choice;
    uint32_t atoms; /* that the choice makes on the SMs of the last sample */
    uint64_t told_ns;
};

struct lithos_atom_book {
    uint32_t tick;
    uint64_t trials, slower, forgotten;
    struct atom_operator operators[LITHOS_PLAN_ROWS];
};

size_t lithos_atom_book_bytes(void)
{
    return sizeof(struct lithos_atom_book);
}

struct lithos_atom_book *lithos_atom_book_init(void *mem)
{
    return mem;
}

/* ---- samples */

static void add(struct samples *s, double ns)
{
    s->ns[s->next] = (float)ns;
    s->next = (s->next + 1) % WINDOW;
    s->count += s->count < WINDOW;
}

/* The lower one of an even number; 0: none. */
static double median(const struct samples *s)
{
    float v[WINDOW];
    memcpy(v, s->ns, sizeof v);
    for (uint32_t i = 1; i < s->count; i++) {
        float x = v[i];
        uint32_t at = i;
        for (; at > 0 && v[at - 1] > x; at--)
            v[at] = v[at - 1];
        v[at] = x;
    }
    return s->count ? (double)v[(s->count - 1) / 2] : 0;
}

/* ---- operators */

/* That of a key, made if need be: the one unused for longest of its set makes room (then *ret_evicted). */
static struct atom_operator *operator_of(struct lithos_atom_book *b, uint64_t key, bool *ret_evicted)
{
    struct atom_operator *set = &b->operators[lithos_plan_row_of(key)], *oldest = set;
    b->tick++;
    for (uint32_t i = 0; i < LITHOS_PLAN_WAYS; i++) {
        if (set[i].key == key) {
            set[i].used = b->tick;
            return &set[i];
        }
        bool free = set[i].key == 0 && oldest->key != 0;
        if (free || (oldest->key != 0 && b->tick - set[i].used > b->tick - oldest->used))
            oldest = &set[i];
    }
    *ret_evicted = oldest->key != 0;
    b->forgotten += *ret_evicted;
    *oldest = (struct atom_operator){.key = key, .used = b->tick};
    return oldest;
}

static uint64_t waves_of(const struct atom_operator *op, uint32_t sms)
{
    uint64_t wave_blocks = (uint64_t)op->blocks_per_sm * sms;
    return LITHOS_MAX((op->blocks + wave_blocks - 1) / wave_blocks, 1u);
}

static void enter(struct atom_operator *op, enum phase phase)
{
    op->phase = (uint8_t)phase;
    op->launches = 0;
    if (phase != PHASE_TRIAL)
        return;
    op->whole.count = op->whole.next = 0;
    op->cut.count = op->cut.next = 0;
}

static void settle(struct atom_operator *op)
{
    op->again = op->again ? LITHOS_MIN(op->again * 2, AGAIN_MOST) : AGAIN_FIRST;
    enter(op, PHASE_SETTLED);
}

/* Both times are known: is the cut worth its price? */
static void judge(struct lithos_atom_book *b, struct atom_operator *op, const struct lithos_atom_limits *l)
{
    double whole_ns = median(&op->whole), cut_ns = median(&op->cut);
    b->trials++;
    if (cut_ns <= whole_ns * (1 + (double)l->slower_ppm / 1e6)) {
        settle(op);
        return;
    }
    b->slower++;
    if (op->coarser < COARSER_MOST) {
        op->coarser++;
        op->cut.count = op->cut.next = 0; /* the time whole stays what it is */
        op->launches = 0;
        return;
    }
    op->slower = true;
    settle(op);
}

/* The operator's choice by what is known now. sms: of the last sample. */
static void plan(struct atom_operator *op, const struct lithos_atom_limits *l, uint32_t sms)
{
    struct lithos_atom_plan p;
    uint64_t waves = waves_of(op, sms);
    double duration_ns = median(&op->wave) * (double)waves;
    const struct lithos_atom_kernel k = {.blocks = op->blocks,
                                         .blocks_per_sm = op->blocks_per_sm,
                                         .sms = sms,
                                         .duration_ns = (uint64_t)duration_ns};
    lithos_atom_plan(l, &k, op->choice.waves != 0, &p);
    if (p.choice.waves && op->coarser) {
        p.choice.waves <<= op->coarser;
        p.atoms = (uint32_t)((waves + p.choice.waves - 1) / p.choice.waves);
        if (p.atoms < 2 && op->phase == PHASE_TRIAL) { /* nothing longer to be tried */
            op->slower = true;
            settle(op);
        }
    }
    if (p.choice.waves && op->slower) {
        p.choice = (struct lithos_atom_choice){.whole = LITHOS_WHOLE_SLOWER};
        p.atoms = 0;
    }
    uint32_t now = op->choice.waves, next = p.choice.waves;
    if (now && next && next < now + now / 2 + 1 &&
        now < next + next / 2 + 1) { /* a step apart: not worth it */
        p.choice.waves = now;
        p.atoms = (uint32_t)((waves + now - 1) / now);
    }
    if (!p.choice.waves && p.choice.whole != LITHOS_WHOLE_SLOWER && op->phase != PHASE_LEARN)
        enter(op, PHASE_LEARN);
    if (p.choice.waves && op->phase == PHASE_LEARN)
        enter(op, duration_ns <= (double)l->trial_ns ? PHASE_TRIAL : PHASE_SETTLED);
    p.choice.trial = p.choice.waves && op->phase == PHASE_TRIAL;
    op->choice = p.choice;
    op->atoms = p.atoms;
}

/* Slices do not divide into waves: the number of atoms may be off by a little, that of another choice by half. */
static bool as_planned(const struct atom_operator *op, uint32_t atoms)
{
    uint32_t off = atoms > op->atoms ? atoms - op->atoms : op->atoms - atoms;
    return atoms && (off <= 1 || off <= op->atoms / 5);
}

/* Time for another trial, one step finer than what was found good enough. */
static void try_again(struct atom_operator *op)
{
    op->slower = false;
    op->coarser -= op->coarser > 0;
    enter(op, PHASE_TRIAL);
}

static void count_launch(struct lithos_atom_book *b, struct atom_operator *op,
                         const struct lithos_atom_limits *l, const struct lithos_atom_sample *s)
{
    op->launches++;
    if (op->phase == PHASE_SETTLED && op->again && op->launches >= op->again)
        try_again(op);
    if (op->phase != PHASE_TRIAL)
        return;
    double wave_ns = (double)s->duration_ns / (double)waves_of(op, s->sms);
    if (s->fair && s->atoms == 0)
        add(&op->whole, wave_ns);
    else if (s->fair && as_planned(op, s->atoms))
        add(&op->cut, wave_ns);
    if (op->whole.count >= TRIAL_WHOLE && op->cut.count >= TRIAL_CUT)
        judge(b, op, l);
    else if (op->launches >= TRIAL_LAUNCHES)
        settle(op);
}

static bool same_choice(const struct lithos_atom_choice *a, const struct lithos_atom_choice *b)
{
    return a->waves == b->waves && a->whole == b->whole && a->trial == b->trial;
}

static struct lithos_atom_row row_of(const struct lithos_atom_book *b, struct atom_operator *op, uint32_t sms)
{
    double wave_ns = median(&op->wave);
    op->told_ns = (uint64_t)(wave_ns * (double)waves_of(op, sms));
    return (struct lithos_atom_row){.row = (uint32_t)(op - b->operators),
                                    .key = op->key,
                                    .choice = op->choice,
                                    .predicted_ns = op->told_ns,
                                    .wave_ns = (uint64_t)wave_ns};
}

bool lithos_atom_book_observe(struct lithos_atom_book *b, const struct lithos_atom_limits *l,
                              const struct lithos_atom_sample *s, struct lithos_atom_row *ret_row)
{
    if (!s->key || !s->sms || !s->blocks)
        return false;
    bool evicted = false;
    struct atom_operator *op = operator_of(b, s->key, &evicted);
    if (s->blocks_per_sm)
        op->blocks_per_sm = s->blocks_per_sm;
    op->blocks = s->blocks;
    if (!op->blocks_per_sm) { /* forgotten since it was launched; the next launch tells */
        *ret_row = (struct lithos_atom_row){.row = (uint32_t)(op - b->operators)};
        return evicted;
    }
    bool first = op->wave.count == 0;
    add(&op->wave, (double)s->duration_ns / (double)waves_of(op, s->sms));
    struct lithos_atom_choice before = op->choice;
    count_launch(b, op, l, s);
    plan(op, l, s->sms);
    double now_ns = median(&op->wave) * (double)waves_of(op, s->sms);
    double moved_ns = now_ns - (double)op->told_ns;
    bool moved = (moved_ns < 0 ? -moved_ns : moved_ns) * TOLD_PART > (double)op->told_ns;
    if (!first && !moved && same_choice(&before, &op->choice))
        return false;
    *ret_row = row_of(b, op, s->sms);
    return true;
}

bool lithos_atom_book_replan(struct lithos_atom_book *b, const struct lithos_atom_limits *l, uint32_t *cursor,
                             struct lithos_atom_row *ret_row)
{
    while (*cursor < LITHOS_PLAN_ROWS) {
        struct atom_operator *op = &b->operators[(*cursor)++];
        if (!op->key || !op->blocks_per_sm || !op->wave.count)
            continue;
        op->coarser = 0;
        op->slower = false;
        op->again = 0;
        op->choice = (struct lithos_atom_choice){.waves = 0};
        enter(op, PHASE_LEARN);
        plan(op, l, l->card_sms);
        *ret_row = row_of(b, op, l->card_sms);
        return true;
    }
    return false;
}

void lithos_atom_book_stats(const struct lithos_atom_book *b, struct lithos_atom_book_stats *ret_stats)
{
    struct lithos_atom_book_stats s = {.trials = b->trials, .slower = b->slower, .forgotten = b->forgotten};
    for (uint32_t i = 0; i < LITHOS_PLAN_ROWS; i++) {
        const struct atom_operator *op = &b->operators[i];
        if (!op->key)
            continue;
        s.operators++;
        if (op->choice.waves)
            s.cut++;
        else
            s.whole[op->choice.whole]++;
    }
    *ret_stats = s;
}
