/* LITHOS_GRANT: what is taken is sane, and comes back the same through format and parse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "proto/grant_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[LITHOS_GRANT_TEXT_MAX];
    struct lithos_grant grant, again;
    char *input = malloc(size + 1);
    if (!input)
        return 0;
    memcpy(input, data, size);
    input[size] = 0;
    int r = lithos_grant_parse(input, &grant);
    free(input);
    if (r < 0)
        return 0;
    if (lithos_grant_validate(&grant) < 0 || lithos_grant_format(&grant, text, sizeof text) < 0 ||
        lithos_grant_parse(text, &again) < 0 || memcmp(&grant, &again, sizeof grant) != 0)
        abort();
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static const char *const seeds[] = {
        "GPU-00112233-4455-6677-8899-aabbccddeeff/0-3,9-16/0-3,9-16,18-25,75/2/9/8",
        "GPU-00112233-4455-6677-8899-aabbccddeeff/0/0-3/2/9/8;GPU-00112233-4455-6677-8899-aabbccddee00/1/0-7/"
        "2/8/8",
        "GPU-00112233-4455-6677-8899-aabbccddeeff/127/0-127/8/128/1",
    };
    if (n >= sizeof seeds / sizeof seeds[0] || strlen(seeds[n]) > size)
        return 0;
    memcpy(buf, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}
