/* The tables are in qmd_v*.def. What they do not say, and where it is from:
 *  - how often a field is repeated: 8 constant banks, 3 release semaphores, 2 dependent QMDs fill the gap to
 * the next field exactly in every version; 4 words of TPC mask: measured on V04_00 (128 bits), the same name
 * on V05_00;
 *  - which capability has which compute class: docs/hardware.md ("Which layout a card has"). */
#include "hw/qmd.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/qmd_internal.h"

#define F(field, low_bit, high_bit, stride_bits, times) \
    [LITHOS_QMD_##field] = {                            \
        .low = (low_bit), .stride = (stride_bits), .bits = (high_bit) - (low_bit) + 1, .count = (times)},

static const struct lithos_qmd_layout layouts[LITHOS_QMD_VERSION_MAX] = {
    [LITHOS_QMD_V02_04] = {.name = "V02_04",
                           .version = LITHOS_QMD_V02_04,
                           .major = 2,
                           .minor = 4,
                           .rows =
                               {
#include "hw/qmd_v02_04.def"
                               }},
    [LITHOS_QMD_V03_00] = {.name = "V03_00",
                           .version = LITHOS_QMD_V03_00,
                           .major = 3,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v03_00.def"
                               }},
    [LITHOS_QMD_V04_00] = {.name = "V04_00",
                           .version = LITHOS_QMD_V04_00,
                           .proved = true,
                           .major = 4,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v04_00.def"
                               }},
    [LITHOS_QMD_V05_00] = {.name = "V05_00",
                           .version = LITHOS_QMD_V05_00,
                           .major = 5,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v05_00.def"
                               }},
};
#undef F

/* Exact pairs; where they are known from: docs/hardware.md. No row, no touching. */
static const struct {
    uint8_t cc_major, cc_minor;
    uint8_t version_byte; /* low nibble minor, high nibble major */
    uint8_t version_value;
    enum lithos_qmd_version version;
} capabilities[] = {
    {9, 0, 72, 0x40, LITHOS_QMD_V04_00}, /* first: looked up at each launch */
    {8, 0, 72, 0x24, LITHOS_QMD_V02_04},  {8, 0, 72, 0x30, LITHOS_QMD_V03_00},
    {8, 6, 72, 0x24, LITHOS_QMD_V02_04},  {8, 6, 72, 0x30, LITHOS_QMD_V03_00},
    {10, 0, 58, 0x50, LITHOS_QMD_V05_00}, {12, 0, 58, 0x50, LITHOS_QMD_V05_00},
};

const struct lithos_qmd_layout *lithos_qmd_layout(enum lithos_qmd_version version)
{
    return (unsigned)version < LITHOS_QMD_VERSION_MAX ? &layouts[version] : NULL;
}

const char *lithos_qmd_layout_name(const struct lithos_qmd_layout *layout)
{
    return layout->name;
}

enum lithos_qmd_version lithos_qmd_layout_version(const struct lithos_qmd_layout *layout)
{
    return layout->version;
}

bool lithos_qmd_layout_proved(const struct lithos_qmd_layout *layout)
{
    return layout->proved;
}

bool lithos_qmd_has(const struct lithos_qmd_layout *layout, enum lithos_qmd_field field)
{
    return (unsigned)field < LITHOS_QMD_FIELD_MAX && layout->rows[field].bits != 0;
}

/* Of one row: 1 when it is not this QMD's. */
static inline __attribute__((always_inline)) int identify_by(size_t i, int cc_major, int cc_minor,
                                                             const uint8_t *qmd, bool allow_unproved,
                                                             const struct lithos_qmd_layout **ret_layout)
{
    if (capabilities[i].cc_major != cc_major || capabilities[i].cc_minor != cc_minor ||
        qmd[capabilities[i].version_byte] != capabilities[i].version_value)
        return 1;
    const struct lithos_qmd_layout *layout = &layouts[capabilities[i].version];
    if (!layout->proved && !allow_unproved)
        return -EPERM;
    *ret_layout = layout;
    return 0;
}

static LITHOS_OFF_PATH int identify_other(int cc_major, int cc_minor, const uint8_t *qmd, bool allow_unproved,
                                          const struct lithos_qmd_layout **ret_layout)
{
    for (size_t i = 1; i < LITHOS_ARRAY_SIZE(capabilities); i++) {
        int r = identify_by(i, cc_major, cc_minor, qmd, allow_unproved, ret_layout);
        if (r <= 0)
            return r;
    }
    return -ENOTSUP;
}

LITHOS_LAUNCH_PATH int lithos_qmd_identify(int cc_major, int cc_minor, const void *qmd, bool allow_unproved,
                                           const struct lithos_qmd_layout **ret_layout)
{
    /* The first row's words are constants here: nothing of the tables is looked up. */
    int r = identify_by(0, cc_major, cc_minor, qmd, allow_unproved, ret_layout);
    return __builtin_expect(r <= 0, 1) ? r
                                       : identify_other(cc_major, cc_minor, qmd, allow_unproved, ret_layout);
}

int lithos_qmd_capability(int cc_major, int cc_minor, bool allow_unproved)
{
    int r = -ENOTSUP;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(capabilities); i++) {
        if (capabilities[i].cc_major != cc_major || capabilities[i].cc_minor != cc_minor)
            continue;
        if (layouts[capabilities[i].version].proved || allow_unproved)
            return 0;
        r = -EPERM;
    }
    return r;
}

uint32_t lithos_qmd_get(const struct lithos_qmd_layout *layout, const void *qmd, enum lithos_qmd_field field,
                        unsigned index)
{
    if (!lithos_qmd_has(layout, field) || index >= layout->rows[field].count)
        return 0;
    return lithos_qmd_row_get(&layout->rows[field], qmd, index);
}

int lithos_qmd_set(const struct lithos_qmd_layout *layout, void *qmd, enum lithos_qmd_field field,
                   unsigned index, uint32_t value)
{
    if (!lithos_qmd_has(layout, field) || index >= layout->rows[field].count)
        return -ENOENT;
    const struct lithos_qmd_row *row = &layout->rows[field];
    if (value > (UINT32_MAX >> (32 - row->bits)))
        return -ERANGE;
    lithos_qmd_row_set(row, qmd, index, value);
    return 0;
}

/* The launch path. Each function is written once for any layout, and compiled a second time for the one proved on a card, where
 * the tables' rows become constants: table look-ups are what costs here (110 ns of 140 for a stamp, on an H100's host). */
#define SPECIALIZED static inline __attribute__((always_inline))
#define BY_LAYOUT(function, ...)                                \
    (__builtin_expect(layout == &layouts[LITHOS_QMD_V04_00], 1) \
         ? function(&layouts[LITHOS_QMD_V04_00], __VA_ARGS__)   \
         : function##_of_any(layout, __VA_ARGS__))

SPECIALIZED uint32_t cluster_blocks(const struct lithos_qmd_layout *layout, const void *qmd)
{
    if (__builtin_expect(!lithos_qmd_row_exists(layout, LITHOS_QMD_QMD_TYPE) ||
                             lithos_qmd_first(layout, qmd, LITHOS_QMD_QMD_TYPE) != LITHOS_QMD_TYPE_CLUSTERS,
                         1))
        return 1;
    uint32_t blocks = lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_WIDTH) *
                      lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_HEIGHT) *
                      lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_DEPTH);
    return blocks ? blocks : 1;
}

SPECIALIZED struct lithos_qmd_brief brief(const struct lithos_qmd_layout *layout, const void *qmd)
{
    const struct lithos_qmd_grid f = lithos_qmd_grid_fields(layout);
    return (struct lithos_qmd_brief){
        .empty = !lithos_qmd_first(layout, qmd, f.dim[0]) || !lithos_qmd_first(layout, qmd, f.dim[1]) ||
                 !lithos_qmd_first(layout, qmd, f.dim[2]),
        .cluster_blocks = cluster_blocks(layout, qmd),
        .registers = lithos_qmd_first(layout, qmd, lithos_qmd_register_field(layout)),
    };
}

static LITHOS_OFF_PATH struct lithos_qmd_brief brief_of_any(const struct lithos_qmd_layout *layout,
                                                            const void *qmd)
{
    return brief(layout, qmd);
}

LITHOS_LAUNCH_PATH void lithos_qmd_brief(const struct lithos_qmd_layout *layout, const void *qmd,
                                         struct lithos_qmd_brief *ret_brief)
{
    *ret_brief = BY_LAYOUT(brief, qmd);
}

SPECIALIZED int set_tpcs(const struct lithos_qmd_layout *layout, void *qmd, const struct lithos_tpcset *tpcs)
{
    const struct lithos_tpcset disabled = {{~tpcs->w[0], ~tpcs->w[1]}};

    if (lithos_qmd_row_exists(layout, LITHOS_QMD_TPC_DISABLE_MASK)) {
        memcpy((uint8_t *)qmd + layout->rows[LITHOS_QMD_TPC_DISABLE_MASK].low / 8, &disabled,
               sizeof(disabled));
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_TPC_DISABLE_MASK_VALID], qmd, 0, 1);
        return 0;
    }
    if (!lithos_qmd_row_exists(layout, LITHOS_QMD_SM_DISABLE_MASK_LOWER))
        return -ENOTSUP;
    /* Before V04_00 a bit is a TPC too, in spite of the name, 64 of them, always in force (docs/hardware.md,
     * "Which layout a card has"; not proved here). A set with more cannot be said. */
    if (tpcs->w[1])
        return -ERANGE;
    lithos_qmd_row_set(&layout->rows[LITHOS_QMD_SM_DISABLE_MASK_LOWER], qmd, 0, (uint32_t)disabled.w[0]);
    lithos_qmd_row_set(&layout->rows[LITHOS_QMD_SM_DISABLE_MASK_UPPER], qmd, 0,
                       (uint32_t)(disabled.w[0] >> 32));
    return 0;
}

static LITHOS_OFF_PATH int set_tpcs_of_any(const struct lithos_qmd_layout *layout, void *qmd,
                                           const struct lithos_tpcset *tpcs)
{
    return set_tpcs(layout, qmd, tpcs);
}

LITHOS_LAUNCH_PATH int lithos_qmd_set_tpcs(const struct lithos_qmd_layout *layout, void *qmd,
                                           const struct lithos_tpcset *tpcs)
{
    return BY_LAYOUT(set_tpcs, qmd, tpcs);
}

/* ---- release semaphore 1 ---- */

#define SEMAPHORE 1u

SPECIALIZED struct lithos_qmd_release release_of(const struct lithos_qmd_layout *layout, const void *qmd)
{
    return (struct lithos_qmd_release){
        .address = (uint64_t)lithos_qmd_first(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER) << 32 |
                   lithos_qmd_first(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_LOWER),
        .payload = (uint64_t)lithos_qmd_first(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_UPPER)
                       << 32 |
                   lithos_qmd_first(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_LOWER),
    };
}

SPECIALIZED void put_release(const struct lithos_qmd_layout *layout, void *qmd, uint64_t address,
                             uint64_t payload)
{
#define PUT(field, index, value) \
    lithos_qmd_row_set(&layout->rows[LITHOS_QMD_RELEASE_##field], qmd, index, value)
    PUT(SEMAPHORE1_ADDR_LOWER, 0, (uint32_t)address);
    PUT(SEMAPHORE1_ADDR_UPPER, 0, (uint32_t)(address >> 32));
    PUT(SEMAPHORE1_PAYLOAD_LOWER, 0, (uint32_t)payload);
    PUT(SEMAPHORE1_PAYLOAD_UPPER, 0, (uint32_t)(payload >> 32));
    PUT(STRUCTURE_SIZE, SEMAPHORE, 0); /* four words: the time as well */
    PUT(MEMBAR_TYPE, SEMAPHORE, 1);    /* what the kernel wrote is seen before */
    PUT(REDUCTION_ENABLE, SEMAPHORE, 0);
    PUT(TRAP_TYPE, SEMAPHORE, 0);
    /* as measured, for as long as that is enough; the longer one is inferred */
    PUT(PAYLOAD64B, SEMAPHORE, payload > UINT32_MAX);
    PUT(ENABLE, SEMAPHORE, 1);
#undef PUT
}

SPECIALIZED int set_release(const struct lithos_qmd_layout *layout, void *qmd,
                            const struct lithos_qmd_release *release, struct lithos_qmd_release *ret_in_use)
{
    const struct lithos_qmd_row *upper = &layout->rows[LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER];
    const struct lithos_qmd_row *enable = &layout->rows[LITHOS_QMD_RELEASE_ENABLE];
    if (!lithos_qmd_row_exists(layout, LITHOS_QMD_RELEASE_ENABLE) ||
        !lithos_qmd_row_exists(layout, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER) ||
        enable->count <= SEMAPHORE)
        return -ENOTSUP;
    if (lithos_qmd_row_get(enable, qmd, SEMAPHORE)) {
        if (ret_in_use)
            *ret_in_use = release_of(layout, qmd);
        return -EBUSY;
    }
    if (release->address % LITHOS_QMD_RELEASE_BYTES ||
        release->address >> 32 > UINT32_MAX >> (32 - upper->bits))
        return -ERANGE;
    put_release(layout, qmd, release->address, release->payload);
    return 0;
}

bool lithos_qmd_get_release(const struct lithos_qmd_layout *layout, const void *qmd,
                            struct lithos_qmd_release *ret_release)
{
    if (!lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, SEMAPHORE))
        return false;
    *ret_release = release_of(layout, qmd);
    return true;
}

static LITHOS_OFF_PATH int set_release_of_any(const struct lithos_qmd_layout *layout, void *qmd,
                                              const struct lithos_qmd_release *release,
                                              struct lithos_qmd_release *ret_in_use)
{
    return set_release(layout, qmd, release, ret_in_use);
}

LITHOS_LAUNCH_PATH int lithos_qmd_set_release(const struct lithos_qmd_layout *layout, void *qmd,
                                              const struct lithos_qmd_release *release,
                                              struct lithos_qmd_release *ret_in_use)
{
    return BY_LAYOUT(set_release, qmd, release, ret_in_use);
}

unsigned lithos_qmd_read_ahead(const struct lithos_qmd_layout *layout, void *qmd)
{
    const struct lithos_qmd_row *valid = &layout->rows[LITHOS_QMD_CONSTANT_BUFFER_VALID];
    const struct lithos_qmd_row *ahead = &layout->rows[LITHOS_QMD_CONSTANT_BUFFER_PREFETCH];
    unsigned made = 0;
    if (!ahead->bits || !valid->bits)
        return 0;
    for (unsigned bank = 0; bank < LITHOS_MIN(valid->count, ahead->count); bank++)
        if (lithos_qmd_row_get(ahead, qmd, bank) && !lithos_qmd_row_get(valid, qmd, bank)) {
            lithos_qmd_row_set(valid, qmd, bank, 1);
            made++;
        }
    return made;
}
