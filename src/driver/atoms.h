/* Atoms as launches: a kernel that the app launches once is launched in parts (docs/hardware.md, "Atoms"; docs/adr/0011-atoms.md).
 *
 * The first part decides. Its queue descriptor tells what the kernel is; the callback either lowers its grid, and further parts
 * follow, or leaves it as it is and says why: the kernel has then been launched whole. Nothing here waits for another process. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/client.h"
#include "driver/ticket.h"
#include "hw/atom.h"
#include "hw/qmd.h"

struct lithos_hook_device;
struct lithos_qmd_seen;
struct lithos_atoms_context; /* atoms_context.h */

/* 0: atoms are off. Else bit 0 is set, and the rest counts threads that are in the middle of a kernel. */
extern _Atomic uint32_t lithos_atoms_state __attribute__((visibility("hidden")));

/* What a ticket carries for the callback, from the first atom of a kernel to the last. */
struct lithos_atom {
    struct lithos_atoms_context *where; /* the prelude and the entries of the current context */
    struct lithos_atom_policy policy;
    bool locate;                      /* the prelude's own launch: where does its code lie? */
    bool chained;                     /* atoms overlap where they meet */
    bool known;                       /* choice is that of its operator; else it is seen for the first time */
    struct lithos_atom_choice choice; /* DURATION */
    uint32_t grid[3], block[3];       /* of the launch: the QMD must be that of this kernel */
    uint32_t index;                   /* of the atom that is being launched */
    uint32_t nodes;                   /* in a graph: as many as there are for it; else 0 */
    bool decided;            /* in a graph: what the first node is made has been decided before, and stays */
    struct lithos_cut cut;   /* count 0: not decided yet, or left whole */
    enum lithos_whole whole; /* why, once the first QMD was seen */
    uint32_t unit_blocks;    /* of a unit of the cut, along its dimension */
    uint32_t blocks_per_sm;  /* that an SM may hold at once; 0: not found out */
    uint64_t target;         /* the kernel's code */
    int error;               /* negative errno: an atom could not be made one, and nothing of it runs */
    uint64_t sequence;       /* of the first atom's record: the client's */
};

/* What kernels are cut into from now on. off: as when the environment says so, whatever comes. Any thread. */
void lithos_atoms_set_policy(const struct lithos_atom_policy *policy);
/* The callback's part: make the QMD, which has its mask, one of the atom's. device NULL: not known. No driver call, wait or
 * allocation. */
void lithos_atoms_qmd(struct lithos_atom *atom, const struct lithos_hook_device *device,
                      const struct lithos_qmd_seen *seen);
/* The same for node `index` of a kernel in a graph, of which it has atom->nodes. Node 0 decides, the first time; what there are too many of, or all but
 * the first where the kernel is left whole, have no block. True: the kernel's end is this node's. */
bool lithos_atoms_node_qmd(struct lithos_atom *atom, const struct lithos_hook_device *device,
                           const struct lithos_qmd_seen *seen);
/* A launch while atoms are on. True: it was made, with *ret_result, in one part or several. False: it is left to the caller, as one
 * that stays whole (and counted as such); launches of other threads into that stream are out of the way. */
bool lithos_atoms_launch(const struct lithos_launch *launch, CUresult *ret_result);
/* Launches that are made as they are, while atoms are on. */
void lithos_atoms_left_whole(enum lithos_whole why, uint32_t launches);
/* Wait, but not for long, while another thread is in the middle of a kernel: on that stream, or (any) on any. */
void lithos_atoms_wait(CUstream stream);
void lithos_atoms_wait_any(void);

void lithos_atoms_context_ends(CUcontext ctx, CUdevice device);
void lithos_atoms_context_ended(CUcontext ctx, CUdevice device, bool ended);
void lithos_atoms_forget(void);

static inline bool lithos_atoms_busy(void)
{
    return __builtin_expect(atomic_load_explicit(&lithos_atoms_state, memory_order_relaxed) > 1, 0);
}
