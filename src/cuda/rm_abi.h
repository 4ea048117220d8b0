/* The few calls of NVIDIA's kernel driver (its resource manager, RM) that LithOS looks at or makes, as we declare them.
 *
 * Source: the open kernel modules, github.com/NVIDIA/open-gpu-kernel-modules, release 580:
 * src/nvidia/arch/nvalloc/unix/include/nv_escape.h (numbers), src/common/sdk/nvidia/inc/nvos.h (NVOS00, NVOS21, NVOS54, NVOS64),
 * src/common/sdk/nvidia/inc/ctrl/ctrla06c.h (channel groups), src/common/sdk/nvidia/inc/nvstatuscodes.h.
 * Seen at work with 580.159.04 (docs/hardware.md, "Time slices"). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define LITHOS_RM_IOCTL_TYPE 'F'
#define LITHOS_RM_FREE 0x29u    /* struct lithos_rm_free */
#define LITHOS_RM_CONTROL 0x2au /* struct lithos_rm_control */
#define LITHOS_RM_ALLOC 0x2bu   /* struct lithos_rm_alloc, or its shorter form */

#define LITHOS_RM_CLASS_CHANNEL_GROUP 0xa06cu /* KEPLER_CHANNEL_GROUP_A: what the hardware gives turns to */

/* Controls of a channel group. */
#define LITHOS_RM_GROUP_SCHEDULE 0xa06c0101u
#define LITHOS_RM_GROUP_SET_TIMESLICE 0xa06c0103u /* struct lithos_rm_timeslice */
#define LITHOS_RM_GROUP_GET_TIMESLICE 0xa06c0104u

#define LITHOS_RM_OK 0u
#define LITHOS_RM_INSUFFICIENT_PERMISSIONS 0x1bu
#define LITHOS_RM_INVALID_OBJECT_HANDLE 0x33u
#define LITHOS_RM_NOT_SUPPORTED 0x56u
#define LITHOS_RM_OBJECT_NOT_FOUND 0x57u

/* Handles are numbers within a client, which is an object itself. Pointers go as 64 bits. */
struct lithos_rm_free { /* NVOS00_PARAMETERS */
    uint32_t client, parent, object, status;
};

struct lithos_rm_alloc_short { /* NVOS21_PARAMETERS */
    uint32_t client, parent, object, class;
    uint64_t params;
    uint32_t params_bytes, status;
};

struct lithos_rm_alloc { /* NVOS64_PARAMETERS */
    uint32_t client, parent, object, class;
    uint64_t params, rights;
    uint32_t params_bytes, flags, status, padding;
};

struct lithos_rm_control { /* NVOS54_PARAMETERS */
    uint32_t client, object, command, flags;
    uint64_t params;
    uint32_t params_bytes, status;
};

struct lithos_rm_timeslice { /* NVA06C_CTRL_TIMESLICE_PARAMS */
    uint64_t us;
};

_Static_assert(sizeof(struct lithos_rm_free) == 16, "NVOS00_PARAMETERS");
_Static_assert(sizeof(struct lithos_rm_alloc_short) == 32, "NVOS21_PARAMETERS");
_Static_assert(offsetof(struct lithos_rm_alloc_short, status) == 28, "NVOS21_PARAMETERS");
_Static_assert(sizeof(struct lithos_rm_alloc) == 48, "NVOS64_PARAMETERS");
_Static_assert(offsetof(struct lithos_rm_alloc, status) == 40, "NVOS64_PARAMETERS");
_Static_assert(sizeof(struct lithos_rm_control) == 32, "NVOS54_PARAMETERS");
_Static_assert(offsetof(struct lithos_rm_control, status) == 28, "NVOS54_PARAMETERS");
_Static_assert(sizeof(struct lithos_rm_timeslice) == 8, "NVA06C_CTRL_TIMESLICE_PARAMS");

#define LITHOS_RM_REQUEST(number, type) \
    _IOC(_IOC_READ | _IOC_WRITE, (unsigned)LITHOS_RM_IOCTL_TYPE, number, sizeof(type))
