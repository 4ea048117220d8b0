/* Card and cost files of any content: refused with a reason, or such that the model takes them. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "fuzz/fuzz.h"
#include "model/card.h"
#include "model/cost.h"
#include "model/model.h"

static const char *const seeds[] = {
    "{\"default\":{\"base_ns\":5},\"kernels\":{\"k\":{\"base_ns\":1500,\"param\":1,\"ns_per_param\":5.0,"
    "\"share\":0.25,"
    "\"share_threads\":128,\"spread\":0.05,\"stagger\":0.5,\"group\":4},\"p\":{\"param\":0,\"points\":[[0,1],"
    "[5,9e3]]}}}",
    "{\"name\":\"X\",\"cc\":[9,0],\"qmd\":\"V04_00\",\"tpcs\":\"0-3,9-16,75\",\"sms_per_tpc\":2,\"gpc_"
    "stride\":9,"
    "\"gpc_count\":8,\"largest_cluster\":16,\"memory_bytes\":100,\"priorities\":[0,-5],\"driver_version\":"
    "13000,"
    "\"sm\":{\"threads\":2048,\"blocks\":32,\"registers\":65536,\"register_unit\":256,\"shared_bytes\":"
    "233472,"
    "\"shared_reserved_bytes\":1024},\"timing\":{\"launch_ns\":5000,\"complete_ns\":1500,\"slice_ns\":"
    "2048000,"
    "\"exit_ps\":100,\"slice_overrun_ppm\":40000,\"preempt_ns\":90000,\"restore_ns\":90000},\"copy\":{"
    "\"latency_ns\":4000,"
    "\"h2d_bytes_per_us\":50000,\"d2h_bytes_per_us\":50000,\"d2d_bytes_per_us\":190},\"attributes\":{\"1\":"
    "1024}}",
};

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    if (n >= sizeof seeds / sizeof *seeds || strlen(seeds[n]) > size)
        return 0;
    memcpy(buf, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}

static void try_card(const char *text)
{
    struct lithos_card card;
    struct lithos_model *m;
    char error[LITHOS_MODEL_ERROR_BYTES] = "";
    if (lithos_card_parse(text, &card, error) < 0) {
        lithos_assert(*error);
        return;
    }
    lithos_assert(lithos_model_create(&card, 1, &m) == 0);
    lithos_model_destroy(m);
}

static void try_costs(const char *text)
{
    struct lithos_costs *costs;
    char error[LITHOS_MODEL_ERROR_BYTES] = "";
    lithos_assert(lithos_costs_create(&costs) == 0);
    if (lithos_costs_merge(costs, text, error) < 0) {
        lithos_assert(*error);
    } else {
        static const char *const names[] = {"k", "p", "other"};
        const uint64_t params[2] = {UINT64_MAX, 3};
        for (unsigned i = 0; i < 3; i++) {
            struct lithos_block_cost cost;
            lithos_costs_find(costs, names[i], params, i, 1024, &cost);
            lithos_assert(cost.group >= 1 && cost.share_ppm >= 1 && cost.share_ppm <= 1000000);
            lithos_assert(cost.spread_ppm <= 1000000 && cost.stagger_ppm <= 1000000);
            lithos_assert(cost.alone_ns <= 1ull << 50);
        }
    }
    lithos_costs_free(costs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    lithos_assert(text);
    memcpy(text, data, size);
    text[size] = '\0';
    try_card(text);
    try_costs(text);
    free(text);
    return 0;
}
