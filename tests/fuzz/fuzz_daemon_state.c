/* The state file: what is accepted survives being written and read again, and gives no TPC to two tenants. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/state.h"
#include "fuzz/fuzz.h"

static void check_disjoint(const struct lithosd_saved *s)
{
    for (uint32_t i = 0; i < s->tenant_count; i++)
        for (uint32_t j = 0; j < i; j++)
            for (uint32_t x = 0; x < s->tenants[i].gpu_count; x++)
                for (uint32_t y = 0; y < s->tenants[j].gpu_count; y++) {
                    const struct lithosd_saved_gpu *a = &s->tenants[i].gpus[x], *b = &s->tenants[j].gpus[y];
                    struct lithos_tpcset both = lithos_tpcset_and(a->own, b->own);
                    if (!memcmp(a->uuid, b->uuid, LITHOS_UUID_BYTES) && !lithos_tpcset_empty(&both))
                        abort();
                }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithosd_saved a, b;
    char why[256] = "";
    memset(&a, 0, sizeof a);
    if (lithosd_state_decode((const char *)data, size, &a, why) < 0) {
        if (!*why)
            abort();
        return 0;
    }
    check_disjoint(&a);
    char *text = lithosd_state_encode(&a);
    memset(&b, 0, sizeof b);
    if (!text || lithosd_state_decode(text, strlen(text), &b, why) < 0)
        abort();
    char *again = lithosd_state_encode(&b);
    if (!again || strcmp(text, again) != 0)
        abort();
    free(again);
    free(text);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static struct lithosd_saved s;
    if (n > 2)
        return 0;
    memset(&s, 0, sizeof s);
    strcpy(s.boot_id, "a-boot");
    s.next_tenant = 10;
    s.tenant_count = (uint32_t)n;
    s.process_count = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        struct lithosd_saved_tenant *t = &s.tenants[i];
        t->id = i + 1;
        t->name[0] = (char)('a' + i);
        t->quota.value = 2;
        t->root_pid = 100;
        t->epoch = 1;
        t->gpu_count = 1;
        lithos_tpcset_add(&t->gpus[0].own, i);
        s.processes[i] =
            (struct lithosd_saved_process){.pid = 101, .start = 7, .tenant = i, .name = "worker"};
    }
    char *text = lithosd_state_encode(&s);
    size_t len = 0;
    for (; text && text[len] && len < size; len++)
        buf[len] = (uint8_t)text[len];
    free(text);
    return len;
}
