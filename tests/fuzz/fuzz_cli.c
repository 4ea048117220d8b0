/* What `lithos` reads of others: a library's ELF tables, lists of GPUs, a daemon's status document. The first byte says
 * which. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "cli/elf_needed.h"
#include "cli/gpus.h"
#include "cli/status_table.h"
#include "fuzz/fuzz.h"

static const struct lithos_gpu_info gpus[] = {
    {.index = 0, .uuid_text = "GPU-00112233-4455-6677-8899-aabbccddeeff"},
    {.index = 1, .uuid_text = "GPU-00112244-4455-6677-8899-aabbccddeeff"},
    {.index = 5, .uuid_text = "GPU-f0112244-4455-6677-8899-aabbccddeeff"},
};

static void check_choice(const struct lithos_gpu_choice *c)
{
    lithos_assert(c->count >= 1 && c->count <= LITHOS_ARRAY_SIZE(gpus));
    for (unsigned i = 0; i < c->count; i++) {
        lithos_assert(c->gpus[i] < LITHOS_ARRAY_SIZE(gpus));
        for (unsigned j = 0; j < i; j++)
            lithos_assert(c->gpus[i] != c->gpus[j]);
    }
}

static void fuzz_gpus(const char *text)
{
    struct lithos_gpu_choice visible, choice;
    char why[512] = "";

    if (lithos_gpus_visible(text, gpus, LITHOS_ARRAY_SIZE(gpus), &visible, why, sizeof(why)) < 0) {
        lithos_assert(why[0]);
        visible = (struct lithos_gpu_choice){2, {0, 2}};
    }
    check_choice(&visible);
    why[0] = 0;
    if (lithos_gpus_choose(text, gpus, LITHOS_ARRAY_SIZE(gpus), &visible, &choice, why, sizeof(why)) == 0)
        check_choice(&choice);
    else
        lithos_assert(why[0]);
}

static void fuzz_elf(const uint8_t *data, size_t size)
{
    char names[64] = "untouched";
    int r = lithos_elf_needed_in(data, size, names, sizeof(names));

    lithos_assert(r == 0 ? strlen(names) < sizeof(names) : !strcmp(names, "untouched"));
}

static void fuzz_status(const char *text)
{
    json_t *document = json_loads(text, 0, NULL);
    FILE *null = fopen("/dev/null", "w");

    if (document && null)
        lithos_assert(lithos_status_print(document, null) == 0);
    if (null)
        fclose(null);
    json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    char *text = strndup((const char *)data + 1, size - 1);
    lithos_assert(text);
    if (data[0] % 3 == 0)
        fuzz_elf(data + 1, size - 1);
    else if (data[0] % 3 == 1)
        fuzz_gpus(text);
    else
        fuzz_status(text);
    free(text);
    return 0;
}

/* A small ELF file cannot be had from the system's: this is a header with two sections, dynamic and its strings. */
static size_t elf_seed(uint8_t *buf, size_t size)
{
    static const uint8_t head[] = {0, 0x7f, 'E', 'L', 'F', 2, 1, 1};
    uint8_t image[64 + 2 * 64 + 32 + 16] = {0};
    const uint64_t shoff = 64, dynamic_at = 64 + 128, strings_at = dynamic_at + 32;
    const uint16_t machine = 62, shentsize = 64, shnum = 2;
    const uint32_t dynamic_type = 6, strings_type = 3, link = 1;
    const uint64_t dynamic_size = 32, strings_size = 16, entry[4] = {1, 1, 0, 0};

    memcpy(image, head + 1, sizeof(head) - 1);
    memcpy(image + 18, &machine, 2);
    memcpy(image + 40, &shoff, 8);
    memcpy(image + 58, &shentsize, 2);
    memcpy(image + 60, &shnum, 2);
    memcpy(image + 64 + 4, &dynamic_type, 4);
    memcpy(image + 64 + 24, &dynamic_at, 8);
    memcpy(image + 64 + 32, &dynamic_size, 8);
    memcpy(image + 64 + 40, &link, 4);
    memcpy(image + 128 + 4, &strings_type, 4);
    memcpy(image + 128 + 24, &strings_at, 8);
    memcpy(image + 128 + 32, &strings_size, 8);
    memcpy(image + dynamic_at, entry, sizeof(entry));
    memcpy(image + strings_at + 1, "libc.so.6", 9);
    char names[64];
    lithos_assert(lithos_elf_needed_in(image, sizeof(image), names, sizeof(names)) == 0 &&
                  !strcmp(names, "libc.so.6"));
    lithos_assert(sizeof(image) + 1 <= size);
    buf[0] = 0;
    memcpy(buf + 1, image, sizeof(image));
    return sizeof(image) + 1;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static const char *const texts[] = {
        "\1"
        "0,1",
        "\1"
        "GPU-f0112244-4455-6677-8899-aabbccddeeff, 5",
        "\1"
        "all",
        "\2"
        "{\"gpus\": [{\"index\": 0, \"uuid\": \"GPU-00112233-4455-6677-8899-aabbccddeeff\", \"tpcs\": 66, "
        "\"free\": 53}], "
        "\"mps\": {\"state\": \"ours\", \"why\": \"\"}, \"tenants\": [{\"name\": \"one\", \"pids\": "
        "[{\"pid\": 11, "
        "\"alive\": true}], \"quota\": \"20%\", \"mode\": \"mask\", \"gpus\": [{\"index\": 0, \"bits\": "
        "\"0-3,9-17\"}], "
        "\"counters\": {\"launches\": 100}}]}",
    };

    if (n == 0)
        return elf_seed(buf, size);
    if (n > LITHOS_ARRAY_SIZE(texts))
        return 0;
    size_t len = LITHOS_MIN(strlen(texts[n - 1]), size);
    memcpy(buf, texts[n - 1], len);
    return len;
}
