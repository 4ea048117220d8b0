/* What the files of `lithos sim` share. */
#pragma once

#include <stdint.h>

#define LITHOS_SIM_PATH_BYTES 4096u

struct lithos_sim_command {
    uint64_t seed, swarm;
    unsigned jobs;
    uint32_t slip_ppm; /* 0: nobody is right-sized */
    const char *card;
    const char *policy; /* NULL: as the swarm chooses */
};

/* Where a scenario or a card lies: share/lithos/KIND/NAME.json beside this program, or what has a slash or ends in .json
 * as it is; NULL: the folder. 0 or negative errno. */
int lithos_sim_share(const char *kind, const char *name, char path[LITHOS_SIM_PATH_BYTES]);
/* Random scenarios by several processes. Returns the exit code. */
int lithos_sim_swarm(const struct lithos_sim_command *c);
