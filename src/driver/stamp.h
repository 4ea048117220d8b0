/* Completion stamps: a kernel's descriptor tells the GPU to write 16 bytes when the kernel is complete
 * (docs/hardware.md, "Completion stamps"). */
#pragma once

#include <stdint.h>

#include "hw/qmd.h"

/* What release semaphore 1 writes at its address. */
#define LITHOS_STAMP_BYTES 16u

/* Have the GPU write {payload, its clock in ns} to a device address, a multiple of 16, when the kernel is complete. 0; -EBUSY
 * when somebody else has taken release semaphore 1; -ENOTSUP when the layout's semaphores are not of the form measured;
 * -ERANGE for an address that does not fit. The QMD is then untouched. No allocation, lock or call out: it runs inside the
 * driver's launch. */
int lithos_stamp_put(const struct lithos_qmd_layout *layout, void *qmd, uint64_t address, uint64_t payload);
