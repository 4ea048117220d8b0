/* Between lithosd and lithos-clocks, which alone of all LithOS talks to NVML: over a SOCK_SEQPACKET pair that is its standard
 * input. Each question is answered once, in order. */
#pragma once

#include <stdint.h>

#define LITHOS_CLOCKS_MAGIC 0x4b434f4cu /* "LOCK" */
#define LITHOS_CLOCKS_VERSION 1u
#define LITHOS_CLOCKS_GPUS_MAX 16u

enum lithos_clocks_what {
    LITHOS_CLOCKS_OPEN,  /* uuid: that is GPU number `gpu` from now on */
    LITHOS_CLOCKS_STATE, /* nothing but the answer */
    LITHOS_CLOCKS_LOCK,  /* SM clocks of at most mhz */
    LITHOS_CLOCKS_RESET, /* as the driver likes */
    LITHOS_CLOCKS_WHAT_MAX,
};

struct lithos_clocks_ask {
    uint32_t magic, version;
    uint32_t what, gpu;
    uint32_t mhz;
    uint32_t reserved;
    uint8_t uuid[16];
};

struct lithos_clocks_tell {
    uint32_t magic, version;
    uint32_t what, gpu;               /* of the question */
    int32_t result;                   /* 0 or negative errno of it; of the rest nothing is to be read then */
    uint32_t locked_mhz;              /* what it has locked; 0: nothing */
    uint32_t mhz, power_mw;           /* now */
    uint32_t max_mhz, min_mhz, steps; /* SM clocks that the card takes, and how many */
    uint32_t restored; /* how often it has given the clocks back by itself: lithosd was not heard of */
    uint64_t energy_mj;
};
