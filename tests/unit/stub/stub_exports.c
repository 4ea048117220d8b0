/* Every name of the driver, weak: stub_driver.c defines some for good. */
#include "driver/exports.h"
#include "stub/stub_driver.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"
#define EXPORT(name)                                            \
    __attribute__((weak, visibility("default"))) int name(void) \
    {                                                           \
        return STUB_RESULT_BASE + LITHOS_EXPORT_##name;         \
    }
#include "cuda/exports.def"
