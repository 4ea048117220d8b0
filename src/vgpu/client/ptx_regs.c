/* How many registers a thread of an entry would get from a compiler: the most 32-bit registers alive at once, each
 * from its first mention to its last, or to the end of a loop that it enters alive. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vgpu/client/ptx_internal.h"

#define LEAST 16u /* smallest count seen in a kernel on a card */
#define MOST 255u
#define OVERHEAD 6u /* addresses, the stack, what a compiler keeps for itself */

struct interval {
    uint32_t first, last;
};

static void mention(struct interval *v, const struct ptx_operand *o, uint32_t at)
{
    if (o->kind != PTX_O_REG)
        return;
    struct interval *i = &v[o->value];
    if (i->first == UINT32_MAX)
        i->first = at;
    i->last = at;
}

static void find_intervals(const struct ptx_entry *e, struct interval *v)
{
    for (uint32_t r = 0; r < e->reg_count; r++)
        v[r] = (struct interval){UINT32_MAX, 0};
    for (uint32_t at = 0; at < e->code_count; at++) {
        const struct ptx_instr *in = &e->code[at];
        for (unsigned i = 0; i < PTX_OPERANDS; i++)
            mention(v, &in->o[i], at);
        mention(v, &in->address, at);
    }
}

/* Backward branches, innermost first as they stand in the text; bounded, for it is an estimate. */
static void extend_over_loops(const struct ptx_entry *e, struct interval *v)
{
    unsigned loops = 0;
    for (uint32_t at = 0; at < e->code_count && loops < 256; at++) {
        const struct ptx_instr *in = &e->code[at];
        if (in->op != PTX_BRA || in->target > at)
            continue;
        loops++;
        for (uint32_t r = 0; r < e->reg_count; r++)
            if (v[r].first < in->target && v[r].last >= in->target && v[r].last < at)
                v[r].last = at;
    }
}

uint32_t ptx_estimate_registers(const struct ptx_entry *e, const uint8_t *reg_bytes)
{
    struct interval *v = malloc(LITHOS_MAX(e->reg_count, 1u) * sizeof *v);
    int32_t *change = calloc((size_t)e->code_count + 2, sizeof *change);
    uint32_t most = MOST;
    if (v && change) {
        find_intervals(e, v);
        extend_over_loops(e, v);
        for (uint32_t r = 0; r < e->reg_count; r++) {
            if (v[r].first == UINT32_MAX)
                continue;
            int32_t words = (reg_bytes[r] + 3) / 4;
            change[v[r].first] += words;
            change[v[r].last + 1] -= words;
        }
        int32_t now = 0;
        most = 0;
        for (uint32_t at = 0; at <= e->code_count; at++) {
            now += change[at];
            most = LITHOS_MAX(most, (uint32_t)now);
        }
        most += OVERHEAD;
    }
    free(v);
    free(change);
    return LITHOS_MAX(LEAST, LITHOS_MIN(most, MOST));
}
