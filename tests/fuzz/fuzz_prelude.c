/* The image that the driver's compiler makes, damaged: patched within its bounds and rightly, or refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/fs.h"
#include "fuzz/fuzz.h"
#include "hw/prelude.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct lithos_prelude_row *row;
    struct lithos_prelude_meaning m;
    size_t offset, room;
    lithos_assert(lithos_prelude_find(9, 0, false, &row) == 0);
    if (lithos_prelude_decode(data, size, &m) == 0)
        lithos_assert(m.kind < LITHOS_PRELUDE_KINDS &&
                      m.instructions * LITHOS_PRELUDE_INSTRUCTION_BYTES <= size);
    uint8_t *image = malloc(size ? size : 1);
    lithos_assert(image);
    memcpy(image, data, size);
    if (lithos_prelude_patch(row, image, size) == 0) {
        lithos_assert(lithos_prelude_text(image, size, &offset, &room) == 0);
        lithos_assert(lithos_prelude_decode(image + offset, room, &m) == 0 && m.kind == 0);
    }
    free(image);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *data, size_t max)
{
    static const char *const names[] = {"sm_80", "sm_90", "sm_100"};
    const struct lithos_prelude_row *row;
    char path[512], *image;
    size_t bytes;
    if (n == 0) {
        lithos_assert(lithos_prelude_find(9, 0, false, &row) == 0 && max >= LITHOS_PRELUDE_BYTES);
        lithos_prelude_write(row, data);
        return LITHOS_PRELUDE_BYTES;
    }
    if (n > 3)
        return 0;
    snprintf(path, sizeof path, "%s/tests/data/prelude/room-%s.cubin", LITHOS_SOURCE_DIR, names[n - 1]);
    lithos_assert(lithos_read_file(path, max, &image, &bytes) == 0);
    memcpy(data, image, bytes);
    free(image);
    return bytes;
}
