/* Launches that come in as atoms: which belong together, and what they make. */
#include "base/util.h"
#include "core/timeline_internal.h"

#define NONE LITHOS_TIMELINE_NONE

void timeline_cut_begins(struct timeline_stream *s, const struct lithos_timeline_launch *l)
{
    s->cut_atoms = l->atoms > 1 ? l->atoms : 0;
    s->cut_sequence = l->sequence;
    s->cut_next = 1;
}

bool timeline_cut_goes_on(struct lithos_timeline *tl, uint32_t stream, const struct lithos_timeline_launch *l)
{
    struct timeline_stream *s = &tl->streams[stream];
    if (!s->cut_atoms || s->cut_atoms != l->atoms || s->cut_sequence != l->sequence ||
        s->cut_next != l->atom) {
        timeline_cut_ends(tl, stream, LITHOS_LOST_MISSING);
        return false;
    }
    if (++s->cut_next == s->cut_atoms)
        s->cut_atoms = 0;
    return true;
}

void timeline_cut_ends(struct lithos_timeline *tl, uint32_t stream, enum lithos_timeline_lost why)
{
    struct timeline_stream *s = &tl->streams[stream];
    if (!s->cut_atoms)
        return;
    s->cut_atoms = 0;
    if (s->tail != NONE) { /* an atom of it: nothing else has come since */
        tl->slots[s->tail].ends = true;
        tl->slots[s->tail].broken = (uint8_t)(why + 1);
        return;
    }
    s->joining = false;
    s->gap = true;
    tl->stats.lost[why]++;
    tl->stats.outstanding--;
    tl->stats.gpu_outstanding[s->gpu]--;
}

enum timeline_joined timeline_join(struct lithos_timeline *tl, uint32_t stream,
                                   const struct timeline_slot *slot, struct lithos_kernel_event *e)
{
    struct timeline_stream *s = &tl->streams[stream];
    uint64_t atom_ns = e->end_ns - e->start_ns, busy_ns = 0;
    if (!s->joining) {
        s->joining = true;
        s->join_lost = 0;
        s->join_launch = slot->launch;
        s->join = *e;
        s->join.busy_ns = s->join_tpc_ns = 0;
        s->join.longest_atom_ns = busy_ns = atom_ns;
    } else if (e->end_ns > s->join.end_ns) {
        /* An atom that was there in time takes no turn: the one before it is still ending. */
        bool waited_for = e->start_ns > s->join.end_ns + tl->config.gpu[s->gpu].turn_ns;
        busy_ns = waited_for ? atom_ns : e->end_ns - s->join.end_ns;
    }
    s->join.busy_ns += busy_ns;
    s->join_tpc_ns += busy_ns * slot->launch.tpc_count;
    s->join.end_ns = LITHOS_MAX(s->join.end_ns, e->end_ns);
    s->join.gpu_end_ns = LITHOS_MAX(s->join.gpu_end_ns, e->gpu_end_ns);
    s->join.longest_atom_ns = LITHOS_MAX(s->join.longest_atom_ns, atom_ns);
    s->join.flags |= e->flags;
    if (slot->broken && !s->join_lost)
        s->join_lost = slot->broken;
    if (!slot->ends)
        return TIMELINE_JOINED;
    s->joining = false;
    if (s->join_lost)
        return TIMELINE_JOIN_LOST;
    *e = s->join;
    if (e->busy_ns) /* each atom may have had others: what they had on average */
        s->join_launch.tpc_count = (uint32_t)((s->join_tpc_ns + e->busy_ns / 2) / e->busy_ns);
    e->launch = &s->join_launch;
    e->atoms = slot->launch.atoms;
    tl->stats.cut++;
    tl->stats.atoms += e->atoms;
    return TIMELINE_JOIN_ENDED;
}

bool timeline_join_lost(struct timeline_stream *s, const struct timeline_slot *slot,
                        enum lithos_timeline_lost why, enum lithos_timeline_lost *ret_why)
{
    if (!s->joining) {
        s->joining = true;
        s->join_lost = 0;
    }
    if (!s->join_lost)
        s->join_lost = (uint8_t)(why + 1);
    if (!slot->ends)
        return false;
    s->joining = false;
    *ret_why = (enum lithos_timeline_lost)(s->join_lost - 1);
    return true;
}
