/* Queue descriptors (QMDs): what the driver hands the GPU for each kernel, as data.
 *
 * One row a field and version (qmd_v*.def), from NVIDIA's published class headers. A layout is known by its
 * exact version; an unknown one is refused, never guessed. Only layouts proved on a card are used unless
 * LITHOS_UNTESTED_GPU=1 (docs/hardware.md). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"

/* Bytes of the largest QMD; every known one has this size at most. */
#define LITHOS_QMD_BYTES 384u

enum lithos_qmd_field {
#define X(name) LITHOS_QMD_##name,
#include "hw/qmd_names.def"
#undef X
    LITHOS_QMD_FIELD_MAX,
};

enum lithos_qmd_version {
    LITHOS_QMD_V02_04,
    LITHOS_QMD_V03_00,
    LITHOS_QMD_V04_00,
    LITHOS_QMD_V05_00,
    LITHOS_QMD_VERSION_MAX,
};

struct lithos_qmd_layout; /* opaque: a table in qmd.c */

/* QMD_TYPE of V04_00 (docs/hardware.md). */
#define LITHOS_QMD_TYPE_GRID 2u
#define LITHOS_QMD_TYPE_CLUSTERS 3u

const struct lithos_qmd_layout *lithos_qmd_layout(enum lithos_qmd_version version);
const char *lithos_qmd_layout_name(const struct lithos_qmd_layout *layout); /* "V04_00" */
enum lithos_qmd_version lithos_qmd_layout_version(const struct lithos_qmd_layout *layout);
bool lithos_qmd_layout_proved(const struct lithos_qmd_layout *layout);
bool lithos_qmd_has(const struct lithos_qmd_layout *layout, enum lithos_qmd_field field);

/* The layout of a QMD that a device of compute capability major.minor was handed: the version stands in the
 * QMD at a place that depends on the generation. 0; -ENOTSUP for a version or capability that no row names
 * (nothing of the QMD may then be touched); -EPERM for a row not proved on a card while allow_unproved is
 * false. */
int lithos_qmd_identify(int cc_major, int cc_minor, const void *qmd, bool allow_unproved,
                        const struct lithos_qmd_layout **ret_layout);
/* Whether any row can match that capability at all, and whether a proved one can; same errors. For use before
 * the first launch: `lithos run` and `lithos doctor`. */
int lithos_qmd_capability(int cc_major, int cc_minor, bool allow_unproved);

/* One field of up to 32 bits; index for repeated fields (0 otherwise). A field the layout has not reads as 0
 * and may not be written (lithos_qmd_set returns -ENOENT); a value too wide for it is -ERANGE. The QMD is
 * then untouched. */
uint32_t lithos_qmd_get(const struct lithos_qmd_layout *layout, const void *qmd, enum lithos_qmd_field field,
                        unsigned index);
int lithos_qmd_set(const struct lithos_qmd_layout *layout, void *qmd, enum lithos_qmd_field field,
                   unsigned index, uint32_t value);

/* What LithOS reads and writes of a QMD, version apart. */
struct lithos_qmd_view {
    uint32_t type;             /* LITHOS_QMD_TYPE_*; layouts without the field: GRID */
    uint32_t grid[3];          /* blocks; for type CLUSTERS clusters, as the hardware counts */
    uint32_t block[3];         /* threads */
    uint32_t cluster[3];       /* blocks a cluster, 1x1x1 for type GRID */
    uint32_t registers;        /* a thread */
    uint32_t shared_bytes;     /* static and dynamic, a block */
    uint64_t entry;            /* program address, bytes */
    bool masked;               /* the TPC mask is in force */
    struct lithos_tpcset tpcs; /* TPCs allowed when masked; all bits set otherwise */
};

/* Version fields, then the view, into a QMD of LITHOS_QMD_BYTES bytes (zeroed first). 0; -ERANGE when a value
 * does not fit its field; -ENOTSUP when the layout lacks something the view asks for (clusters, a mask). */
int lithos_qmd_encode(const struct lithos_qmd_layout *layout, const struct lithos_qmd_view *view, void *qmd);
void lithos_qmd_decode(const struct lithos_qmd_layout *layout, const void *qmd,
                       struct lithos_qmd_view *ret_view);

/* What the launch path needs to know of a QMD. */
struct lithos_qmd_brief {
    bool empty; /* no block: a graph uploads such, and a node of it that is switched off; leave them alone */
    uint32_t cluster_blocks; /* 1 for plain grids */
    uint32_t registers;      /* a thread */
};

void lithos_qmd_brief(const struct lithos_qmd_layout *layout, const void *qmd,
                      struct lithos_qmd_brief *ret_brief);
/* Allow exactly these TPCs. No check that the set is sane: that is the last gate's (driver/gate.h). -ENOTSUP
 * when the layout has no mask; -ERANGE when the set has a bit of 64 or more and the layout's mask has 64 bits
 * (before V04_00). The QMD is then untouched. No allocation, lock or call out: it runs inside the driver's
 * launch. */
int lithos_qmd_set_tpcs(const struct lithos_qmd_layout *layout, void *qmd, const struct lithos_tpcset *tpcs);

/* Constants read ahead for the kernel that comes next in a graph: the driver names them in banks that the kernel itself has no use for,
 * and leaves these invalid, as they are otherwise, in a QMD that it makes anew (docs/hardware.md, "Graphs that are changed"). Makes them
 * valid again; nothing where the layout says it otherwise. No allocation, lock or call out. Returns how many. */
unsigned lithos_qmd_read_ahead(const struct lithos_qmd_layout *layout, void *qmd);

/* Bytes that a release semaphore writes. */
#define LITHOS_QMD_RELEASE_BYTES 16u
/* Release semaphore 1 (the driver uses 0): at the kernel's completion the GPU writes payload (8 bytes) and its clock (8 bytes, ns)
 * at an address, a multiple of 16. */
struct lithos_qmd_release {
    uint64_t address, payload;
};

/* 0; -EBUSY when it is in use already (ret_in_use, if not NULL, says how); -ENOTSUP when the layout's semaphores are not of the form
 * measured; -ERANGE for an address that is no multiple of 16 or does not fit. The QMD is then untouched. */
int lithos_qmd_set_release(const struct lithos_qmd_layout *layout, void *qmd,
                           const struct lithos_qmd_release *release, struct lithos_qmd_release *ret_in_use);
/* Whether it is in use, and how. */
bool lithos_qmd_get_release(const struct lithos_qmd_layout *layout, const void *qmd,
                            struct lithos_qmd_release *ret_release);
