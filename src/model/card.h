/* A card as data: what the model needs to know of it, and what a driver tells of it
 * (share/lithos/cards/NAME.json). */
#pragma once

#include <stdint.h>

#include "hw/qmd.h"
#include "hw/topology.h"
#include "model/power.h"

#define LITHOS_CARD_NAME_BYTES 128u
#define LITHOS_CARD_ATTRIBUTES 160u /* cuDeviceGetAttribute numbers */
#define LITHOS_CARD_SMS_MAX 256u
#define LITHOS_CARD_SM_BLOCKS_MAX 32u

enum lithos_copy_engine {
    LITHOS_COPY_H2D,
    LITHOS_COPY_D2H,
    LITHOS_COPY_D2D,
    LITHOS_COPY_ENGINE_MAX,
};

struct lithos_card {
    char name[LITHOS_CARD_NAME_BYTES];
    int32_t cc_major, cc_minor;
    enum lithos_qmd_version qmd; /* layout of the launches it obeys */
    struct lithos_topology topology;
    int32_t priority_least, priority_greatest; /* of streams: 0, -5 */
    int32_t driver_version;
    uint64_t memory_bytes;
    int32_t attributes[LITHOS_CARD_ATTRIBUTES];

    /* What an SM holds */
    uint32_t sm_threads;
    uint32_t sm_blocks;
    uint32_t sm_registers;
    uint32_t sm_shared_bytes;
    uint32_t block_shared_reserved_bytes; /* taken by the system, a block */
    uint32_t warp_register_unit;          /* registers are given to a warp in such pieces */
    uint32_t largest_cluster_blocks;      /* 1: no clusters */

    /* Times */
    uint64_t launch_ns;   /* a launch sent to its first block placed */
    uint64_t complete_ns; /* last block's end to the completion seen, and to the next launch of the stream */
    uint32_t exit_ps;     /* a block that ends in an atom's prelude, in the whole card */
    uint64_t slice_ns;    /* turn of a domain while another waits */
    uint32_t slice_overrun_ppm; /* turns are longer than that by this much */
    uint64_t preempt_ns;        /* end of the turn to the blocks stopped; they run meanwhile */
    uint64_t restore_ns;        /* blocks stopped to the next domain's running; nothing runs meanwhile */
    uint64_t copy_latency_ns;
    uint64_t copy_bytes_per_us[LITHOS_COPY_ENGINE_MAX];

    struct lithos_power_card power; /* max_mhz 0: the file says nothing of it */
};

/* Number of SMs of the card. */
static inline uint32_t lithos_card_sms(const struct lithos_card *card)
{
    return lithos_tpcset_count(&card->topology.valid) * card->topology.sms_per_tpc;
}

/* Room for an error text of this header and cost.h. */
#define LITHOS_MODEL_ERROR_BYTES 256u

/* Read a card file's text. 0; -EINVAL with what is wrong and where in error; -ENOMEM. */
int lithos_card_parse(const char *text, struct lithos_card *ret_card, char error[LITHOS_MODEL_ERROR_BYTES]);
/* Read a card file. As above, or negative errno of reading it. */
int lithos_card_load(const char *path, struct lithos_card *ret_card, char error[LITHOS_MODEL_ERROR_BYTES]);
/* 0, or -EINVAL with the reason in error: what lithos_model_create asks of a card. */
int lithos_card_validate(const struct lithos_card *card, char error[LITHOS_MODEL_ERROR_BYTES]);
