/* Whose energy was it? A card counts what it draws as a whole; what ran when is known by tenant. Pure, of fixed size.
 *
 * From one look at the counter to the next, the energy is shared out by TPC time (TPCs a kernel might use times its
 * duration) of the kernels that ended in between. Two figures bound what that leaves open:
 *   whole  all of it: who runs pays for the card being on. What is drawn while nobody runs is nobody's;
 *   least  what is drawn beyond the least power that was seen with nobody running.
 * Neither knows that a TPC that computes draws more than one that waits for memory: between tenants that differ in that, the
 * shares are off by as much as their power a TPC differs. A kernel that goes over several looks counts at its end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LITHOS_ENERGY_TENANTS_MAX 64u

struct lithos_energy_tenant {
    double tpc_ns; /* since the last look */
    double whole_mj, least_mj;
};

struct lithos_energy {
    bool begun;
    uint64_t at_ns, counter_mj; /* the last look */
    double idle_mw;             /* least power of a look with nobody running; 0: none yet */
    double nobody_mj, all_mj;
    struct lithos_energy_tenant tenant[LITHOS_ENERGY_TENANTS_MAX];
};

void lithos_energy_init(struct lithos_energy *e);
/* A kernel of a tenant has ended. A slot out of range is ignored. */
void lithos_energy_kernel(struct lithos_energy *e, uint32_t slot, uint64_t duration_ns, uint32_t tpcs);
/* A tenant is gone; its slot begins anew. */
void lithos_energy_forget(struct lithos_energy *e, uint32_t slot);
/* The counter of the card reads counter_mj now. One that runs backwards (the driver was reloaded) begins anew. */
void lithos_energy_look(struct lithos_energy *e, uint64_t now_ns, uint64_t counter_mj);
