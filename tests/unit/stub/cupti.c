/* A library of CUPTI's name that asks the driver for a table which nobody knows, as CUPTI does to find out whether somebody has
 * subscribed. */
#include "cuda/cuda_abi.h"

__attribute__((visibility("default"))) int cupti_stub_ask(CUresult (*get_table)(const void **,
                                                                                const CUuuid *));

int cupti_stub_ask(CUresult (*get_table)(const void **, const CUuuid *))
{
    static const CUuuid unknown = {{1, 2, 3}};
    const void *table = NULL;
    volatile CUresult result = get_table(&table, &unknown); /* no tail call: the driver sees who asks */
    return result;
}
