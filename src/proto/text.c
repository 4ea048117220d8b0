/* The texts that people and environment variables carry: quotas, UUIDs, a tenant's credentials. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/message.h"
#include "proto/socket.h"

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits from *text on, moved past them. Saturates far above every value that is in range. */
static uint32_t parse_number(const char **text)
{
    uint32_t v = 0;
    for (; digit(**text); (*text)++)
        v = v < 1000000 ? v * 10 + (uint32_t)(**text - '0') : v;
    return v;
}

/* Up to two digits after the point, in hundredths; -EINVAL for none or more. */
static int parse_hundredths(const char **text, uint32_t *ret_hundredths)
{
    if (!digit(**text))
        return -EINVAL;
    uint32_t v = (uint32_t)(*(*text)++ - '0') * 10;
    if (digit(**text))
        v += (uint32_t)(*(*text)++ - '0');
    if (digit(**text))
        return -EINVAL;
    *ret_hundredths = v;
    return 0;
}

int lithos_quota_parse(const char *text, struct lithos_quota *ret_quota)
{
    if (!digit(*text))
        return -EINVAL;
    uint32_t whole = parse_number(&text), hundredths = 0;
    bool fraction = *text == '.';
    if (fraction) {
        text++;
        if (parse_hundredths(&text, &hundredths) < 0)
            return -EINVAL;
    }
    if (!strcmp(text, "%")) {
        uint32_t value = whole * 100 + hundredths;
        if (value == 0 || value > 10000)
            return -ERANGE;
        *ret_quota = (struct lithos_quota){LITHOS_QUOTA_PERCENT, value};
        return 0;
    }
    if (*text || fraction)
        return -EINVAL;
    if (whole > LITHOS_TPC_BITS)
        return -ERANGE;
    *ret_quota = (struct lithos_quota){LITHOS_QUOTA_TPCS, whole};
    return 0;
}

char *lithos_quota_format(const struct lithos_quota *q, char text[16])
{
    if (q->unit != LITHOS_QUOTA_PERCENT)
        snprintf(text, 16, "%u", q->value);
    else if (q->value % 100 == 0)
        snprintf(text, 16, "%u%%", q->value / 100);
    else if (q->value % 10 == 0)
        snprintf(text, 16, "%u.%u%%", q->value / 100, q->value / 10 % 10);
    else
        snprintf(text, 16, "%u.%02u%%", q->value / 100, q->value % 100);
    return text;
}

static const char *const class_names[LITHOS_CLASS_MAX] = {"high", "best-effort"};

const char *lithos_class_name(enum lithos_class class)
{
    return (unsigned)class < LITHOS_CLASS_MAX ? class_names[class] : "?";
}

int lithos_class_parse(const char *text, uint32_t *ret_class)
{
    for (uint32_t c = 0; c < LITHOS_CLASS_MAX; c++)
        if (!strcmp(text, class_names[c])) {
            *ret_class = c;
            return 0;
        }
    return -EINVAL;
}

static int hex(char c)
{
    if (digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_byte(const char *text, uint8_t *ret_byte)
{
    int high = hex(text[0]);
    int low = high < 0 ? -1 : hex(text[1]);
    if (low < 0)
        return false;
    *ret_byte = (uint8_t)(high << 4 | low);
    return true;
}

char *lithos_tenant_format(uint64_t tenant, const uint8_t token[LITHOS_TOKEN_BYTES],
                           char text[LITHOS_TENANT_TEXT_MAX])
{
    int n = snprintf(text, LITHOS_TENANT_TEXT_MAX, "%llx:", (unsigned long long)tenant);
    for (size_t i = 0; i < LITHOS_TOKEN_BYTES; i++)
        n += snprintf(text + n, LITHOS_TENANT_TEXT_MAX - (size_t)n, "%02x", token[i]);
    return text;
}

int lithos_tenant_parse(const char *text, uint64_t *ret_tenant, uint8_t ret_token[LITHOS_TOKEN_BYTES])
{
    uint64_t tenant = 0;
    uint8_t token[LITHOS_TOKEN_BYTES];
    size_t digits = 0;
    for (; hex(*text) >= 0; text++, digits++)
        tenant = tenant << 4 | (uint64_t)hex(*text);
    if (digits == 0 || digits > 16 || tenant == 0 || *text++ != ':')
        return -EINVAL;
    for (size_t i = 0; i < LITHOS_TOKEN_BYTES; i++, text += 2)
        if (!parse_byte(text, &token[i]))
            return -EINVAL;
    if (*text)
        return -EINVAL;
    *ret_tenant = tenant;
    memcpy(ret_token, token, sizeof token);
    return 0;
}

static bool dash_before(size_t byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

char *lithos_uuid_format(const uint8_t uuid[LITHOS_UUID_BYTES], char text[LITHOS_UUID_TEXT_MAX])
{
    int n = snprintf(text, LITHOS_UUID_TEXT_MAX, "GPU-");
    for (size_t i = 0; i < LITHOS_UUID_BYTES; i++)
        n += snprintf(text + n, LITHOS_UUID_TEXT_MAX - (size_t)n, dash_before(i) ? "-%02x" : "%02x", uuid[i]);
    return text;
}

int lithos_uuid_parse(const char *text, uint8_t ret_uuid[LITHOS_UUID_BYTES])
{
    uint8_t uuid[LITHOS_UUID_BYTES];
    if (!strncmp(text, "GPU-", 4))
        text += 4;
    for (size_t i = 0; i < LITHOS_UUID_BYTES; i++, text += 2) {
        if (dash_before(i) && *text++ != '-')
            return -EINVAL;
        if (!parse_byte(text, &uuid[i]))
            return -EINVAL;
    }
    if (*text)
        return -EINVAL;
    memcpy(ret_uuid, uuid, sizeof uuid);
    return 0;
}
