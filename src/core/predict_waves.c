#include "base/util.h"
#include "core/predict_internal.h"

float lithos_predict_waves(uint32_t blocks, uint32_t blocks_per_sm, uint32_t width, uint32_t sms_per_tpc)
{
    const uint64_t per_wave = LITHOS_MAX((uint64_t)blocks_per_sm * width * sms_per_tpc, 1u);
    return (float)LITHOS_MAX((blocks + per_wave - 1) / per_wave, 1u);
}

void lithos_predict_function_add(struct lithos_predict_function *f, uint32_t blocks, float waves,
                                 float duration_ns)
{
    const unsigned log2 = 31u - (unsigned)__builtin_clz(blocks | 1u);
    f->grid[log2 % LITHOS_PREDICT_GRIDS] =
        (struct lithos_predict_grid){.waves = waves, .duration_ns = duration_ns};
}

/* From the nearest grid seen (by the ratio of waves): as long a wave, or as the line through all the grids has
 * it, when there are grids of different numbers of waves. */
void lithos_predict_function_estimate(const struct lithos_predict_function *f, float waves,
                                      struct lithos_predict_estimate *ret_estimate)
{
    struct lithos_predict_line line = {0};
    const struct lithos_predict_grid *nearest = NULL;
    double nearest_ratio = 0, slope, base, scale;

    for (unsigned i = 0; i < LITHOS_PREDICT_GRIDS; i++) {
        const struct lithos_predict_grid *g = &f->grid[i];
        if (!(g->waves > 0))
            continue;
        const double ratio = (double)(waves > g->waves ? waves / g->waves : g->waves / waves);
        if (!nearest || ratio < nearest_ratio) {
            nearest = g;
            nearest_ratio = ratio;
        }
        lithos_predict_line_add(&line, (double)g->waves, (double)g->duration_ns, 1);
    }
    if (!nearest) {
        ret_estimate->kind = LITHOS_PREDICT_KIND_NONE;
        return;
    }
    scale = (double)waves / (double)nearest->waves;
    if (lithos_predict_line_fit(&line, &slope, &base) && slope * (double)nearest->waves + base > 0)
        scale = (slope * (double)waves + base) / (slope * (double)nearest->waves + base);
    ret_estimate->kind = LITHOS_PREDICT_KIND_WAVES;
    ret_estimate->duration_ns = lithos_predict_clamp((double)nearest->duration_ns * scale);
    ret_estimate->guess = 0;
    ret_estimate->samples = 1;
}
