/* Quotas, tenants' credentials and UUIDs as text: what is accepted formats to text that parses to the same. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/socket.h"

static void quota(const char *text)
{
    struct lithos_quota q, again;
    char back[16];
    if (lithos_quota_parse(text, &q) < 0)
        return;
    if (lithos_quota_parse(lithos_quota_format(&q, back), &again) < 0 || q.unit != again.unit ||
        q.value != again.value)
        abort();
}

static void tenant(const char *text)
{
    uint64_t id, id2;
    uint8_t token[LITHOS_TOKEN_BYTES], token2[LITHOS_TOKEN_BYTES];
    char back[LITHOS_TENANT_TEXT_MAX];
    if (lithos_tenant_parse(text, &id, token) < 0)
        return;
    if (lithos_tenant_parse(lithos_tenant_format(id, token, back), &id2, token2) < 0 || id != id2 ||
        memcmp(token, token2, sizeof token) != 0)
        abort();
}

static void uuid(const char *text)
{
    uint8_t a[LITHOS_UUID_BYTES], b[LITHOS_UUID_BYTES];
    char back[LITHOS_UUID_TEXT_MAX];
    if (lithos_uuid_parse(text, a) < 0)
        return;
    if (lithos_uuid_parse(lithos_uuid_format(a, back), b) < 0 || memcmp(a, b, sizeof a) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* of exactly that size, so that a sanitizer sees the first byte beyond */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    quota(text);
    tenant(text);
    uuid(text);
    free(text);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static const char *const seeds[] = {"40%",
                                        "37.5%",
                                        "26",
                                        "100.00%",
                                        "1f:00112233445566778899aabbccddeeff",
                                        "GPU-8f8b1234-00ff-abcd-0123-456789abcdef",
                                        "8F8B1234-00ff-abcd-0123-456789abcdef"};
    if (n >= LITHOS_ARRAY_SIZE(seeds) || strlen(seeds[n]) > size)
        return 0;
    memcpy(buf, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}
