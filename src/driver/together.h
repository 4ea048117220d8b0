/* Kernels whose blocks wait for each other: all of them need a place on the card at the same time, or none ever ends. Cooperative launches
 * say so, and the driver refuses those that are too large for the card, but knows nothing of a mask; some libraries' kernels do not say it
 * (driver/names.c). */
#pragma once

#include <stdint.h>

#include "base/util.h"

#include "driver/client.h"

/* SMs that it takes for all its blocks to be there at once; UINT32_MAX: not known. Asks the driver. */
LITHOS_OFF_PATH uint32_t lithos_together_sms(const struct lithos_launch *l);
