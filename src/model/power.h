/* What a card draws, and how fast it is, by its clock: a model, whose numbers are each card's data
 * (share/lithos/cards/NAME.json, "power"), with their source beside them. docs/power.md says what was measured.
 *
 *   watts = board + leak V + tree V^2 f + sms V^2 f busy + memory traffic
 *
 * V and f as parts of their values at the highest clock; busy is the part of the SMs' throughput in use, traffic of the
 * memory bandwidth. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LITHOS_POWER_VOLTS_MAX 8u

struct lithos_power_card {
    uint32_t max_mhz, min_mhz, step_mhz; /* supported: max, max - step, ... down to min; max 0: no model */
    uint32_t memory_mhz;
    uint32_t switch_us;                                     /* from a clock asked for to the clock in force */
    uint32_t limit_mw;                                      /* above it the card slows down by itself */
    uint32_t board_mw, leak_mw, tree_mw, sms_mw, memory_mw; /* at the highest clock, all in use */
    uint32_t volt_count;
    struct {
        uint32_t mhz, mv;
    } volts[LITHOS_POWER_VOLTS_MAX]; /* rising; a straight line between, level outside */
};

/* What it is doing: parts of all it can do, in ppm. */
struct lithos_power_load {
    uint32_t busy_ppm, traffic_ppm;
};

/* Is there a model, and does it make sense: clocks that go up in whole steps, volts that do not fall? */
bool lithos_power_valid(const struct lithos_power_card *p);
/* The supported clock at or below mhz; the lowest one below that. */
uint32_t lithos_power_step_mhz(const struct lithos_power_card *p, uint32_t mhz);
uint32_t lithos_power_steps(const struct lithos_power_card *p);
/* At a clock, by the voltage that goes with it. */
uint32_t lithos_power_mw(const struct lithos_power_card *p, uint32_t mhz,
                         const struct lithos_power_load *load);
