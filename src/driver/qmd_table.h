/* The driver's export table that carries the QMD callback (docs/hardware.md, "Seeing every launch"). */
#pragma once

#include <stddef.h>

#include "cuda/cuda_abi.h"

typedef CUresult (*lithos_export_table_fn)(const void **ret_table, const CUuuid *uuid);

/* Find the table, look whether it is as it should be, subscribe and enable. 0; -ENOTSUP when there is no such table or it
 * is of another shape; -EBUSY when the driver refuses. why: the reason, for people (untouched on success). Once a
 * process: a second subscription is accepted by the driver and never called. */
int lithos_qmd_table_subscribe(lithos_export_table_fn get_table, lithos_qmd_callback callback, void *user,
                               char *why, size_t why_bytes);
