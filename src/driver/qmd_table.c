#include "driver/qmd_table.h"

#include <errno.h>
#include <stdio.h>

/* A table longer than this is not one. */
#define TABLE_BYTES_MAX (64u * 1024)

int lithos_qmd_table_subscribe(lithos_export_table_fn get_table, lithos_qmd_callback callback, void *user,
                               char *why, size_t why_bytes)
{
    static const CUuuid uuid = LITHOS_QMD_TABLE_UUID;
    const void *found = NULL;
    CUresult result = get_table(&found, &uuid);
    if (result != CUDA_SUCCESS || !found) {
        snprintf(why, why_bytes, "the driver has no QMD table (cuGetExportTable: error %d)", result);
        return -ENOTSUP;
    }
    /* The first word is the table's size in bytes, its own included. */
    void *const *table = found;
    uintptr_t bytes = (uintptr_t)table[0];
    if (bytes < (LITHOS_QMD_TABLE_ENABLE + 1) * sizeof(void *) || bytes > TABLE_BYTES_MAX ||
        !table[LITHOS_QMD_TABLE_SUBSCRIBE] || !table[LITHOS_QMD_TABLE_ENABLE]) {
        snprintf(why, why_bytes, "the driver's QMD table is not of the known shape (%zu bytes)",
                 (size_t)bytes);
        return -ENOTSUP;
    }
    lithos_qmd_subscribe_fn subscribe = (lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE];
    lithos_qmd_enable_fn enable = (lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE];
    uint32_t handle = 0;
    int r = subscribe(&handle, callback, user);
    if (!r)
        r = enable(1, handle, LITHOS_QMD_DOMAIN, LITHOS_QMD_CALLBACK_ID);
    if (r) {
        snprintf(why, why_bytes,
                 "the driver refuses the QMD callback (error %d), as when a debugger or profiler has it", r);
        return -EBUSY;
    }
    return 0;
}
