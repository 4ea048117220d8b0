/* Between the virtual libcuda.so.1 (client) and lithos-vgpud (server), over one SOCK_SEQPACKET connection a process.
 *
 * The server owns the cards and their time; the client owns memory, modules and handles, so that one process cannot
 * see another's data. Ids are chosen by the client, never 0, never reused in a connection. Nothing is answered but
 * HELLO: work is sent and runs, and each op (launch, copy, mark) is reported once by DONE, in stream order. The client
 * carries out an op's effects (copy the bytes, interpret the kernel) when its DONE arrives.
 * The end of the connection frees everything of that process, running kernels included. */
#pragma once

#include <stdint.h>

#include "hw/qmd.h"

#define VGPU_WIRE_MAGIC 0x55504756u /* "VGPU" */
#define VGPU_WIRE_VERSION 5u
#define VGPU_MAX_CARDS 8u
#define VGPU_NAME_BYTES 128u
#define VGPU_ATTRIBUTES 160u /* cuDeviceGetAttribute numbers */
#define VGPU_PARAMS 8u
#define VGPU_PLACEMENTS 1024u /* blocks a PLACEMENT message tells of */

enum vgpu_msg_type {
    VGPU_HELLO = 1,  /* c->s struct vgpu_hello */
    VGPU_WELCOME,    /* s->c struct vgpu_welcome, then one VGPU_CARD a card */
    VGPU_CARD,       /* s->c struct vgpu_card */
    VGPU_CTX_CREATE, /* c->s struct vgpu_ctx */
    VGPU_CTX_DESTROY,
    VGPU_STREAM_CREATE, /* c->s struct vgpu_stream */
    VGPU_STREAM_DESTROY,
    VGPU_LAUNCH, /* c->s struct vgpu_launch */
    VGPU_COPY,   /* c->s struct vgpu_copy */
    VGPU_MARK,   /* c->s struct vgpu_mark: done when all before it in the stream is */
    VGPU_WAIT, /* c->s struct vgpu_wait: the stream goes on when a mark (of any stream of the process) is done */
    VGPU_DONE,      /* s->c struct vgpu_done */
    VGPU_PLACEMENT, /* s->c struct vgpu_placement, before the DONE of a launch that asked for it */
    VGPU_FAULT,     /* s->c struct vgpu_fault: the context is lost; no DONE follows for its ops */
    VGPU_QUERY,     /* c->s struct vgpu_query: of a card's clocks and power; answered by ANSWER, in order */
    VGPU_ANSWER,    /* s->c struct vgpu_answer */
    VGPU_CTX_SLICE, /* c->s struct vgpu_slice: how long its channel group's turns are */
    VGPU_MSG_TYPE_MAX,
};

struct vgpu_msg_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t size;
    uint32_t reserved;
};

struct vgpu_hello {
    struct vgpu_msg_header h;
    uint32_t mps;            /* 1: this process is a client of an MPS server (domain below) */
    uint32_t thread_percent; /* CUDA_MPS_ACTIVE_THREAD_PERCENTAGE, 0 = not set */
    uint64_t mps_domain;     /* which MPS server: its pid; clients of one share the card in space */
    int32_t priority;        /* CUDA_MPS_CLIENT_PRIORITY: 0 normal, 1 below normal */
    uint32_t reserved;
};

struct vgpu_welcome {
    struct vgpu_msg_header h;
    uint32_t cards;
    int32_t driver_version; /* as cuDriverGetVersion */
    double scale;           /* real ns a ns of the card: 10 = ten times slower than the card modelled */
};

struct vgpu_card {
    struct vgpu_msg_header h;
    uint32_t index;
    uint32_t sm_count;
    uint8_t uuid[16];
    char name[VGPU_NAME_BYTES];
    uint64_t total_mem;
    int32_t cc_major, cc_minor;
    int32_t priority_least, priority_greatest;
    int32_t attributes[VGPU_ATTRIBUTES];
    struct lithos_tpcset tpcs; /* mask bits that name a TPC; SMs are numbered along them */
    uint32_t sms_per_tpc;      /* sm_count is so many a TPC */
    uint32_t reserved;
};

struct vgpu_ctx { /* CTX_CREATE, CTX_DESTROY */
    struct vgpu_msg_header h;
    uint64_t ctx;
    uint32_t card;
    uint32_t reserved;
};

#define VGPU_SLICE_MAX_US 1000000u

struct vgpu_slice {
    struct vgpu_msg_header h;
    uint64_t ctx;
    uint64_t us; /* 1 to VGPU_SLICE_MAX_US */
};

struct vgpu_stream { /* STREAM_CREATE, STREAM_DESTROY */
    struct vgpu_msg_header h;
    uint64_t stream;
    uint64_t ctx;
    int32_t priority;
    uint32_t reserved;
};

#define VGPU_LAUNCH_WANT_PLACEMENT 1u /* the client will interpret the kernel and needs block -> SM */
#define VGPU_LAUNCH_ATOM 2u           /* part of a grid: less than the kernel was launched with */
#define VGPU_LAUNCH_ORDERED 4u /* what has leave to overlap with it may begin when its last block has */

struct vgpu_launch {
    struct vgpu_msg_header h;
    uint64_t op;
    uint64_t stream;
    uint32_t flags;
    uint32_t param_count;
    uint64_t exits; /* of the QMD's blocks, so many end in the prelude: they are not placed nor told of */
    /* Blocks that atoms of kernels launched before have left out, or will have run twice: for the report. */
    uint64_t cut_missed, cut_twice;
    uint64_t
        params[VGPU_PARAMS]; /* the kernel's first parameters, zero-extended: the cost file may use them */
    char kernel[VGPU_NAME_BYTES];  /* looked up in the cost file */
    uint8_t qmd[LITHOS_QMD_BYTES]; /* as the driver would hand it to the card: decoded and obeyed */
};

enum vgpu_copy_kind { VGPU_COPY_H2D, VGPU_COPY_D2H, VGPU_COPY_D2D, VGPU_COPY_KIND_MAX };

struct vgpu_copy {
    struct vgpu_msg_header h;
    uint64_t op;
    uint64_t stream;
    uint64_t bytes;
    uint32_t kind;
    uint32_t reserved;
};

struct vgpu_mark {
    struct vgpu_msg_header h;
    uint64_t op;
    uint64_t stream;
};

struct vgpu_wait {
    struct vgpu_msg_header h;
    uint64_t stream;
    uint64_t mark; /* op of a VGPU_MARK sent before */
};

struct vgpu_done {
    struct vgpu_msg_header h;
    uint64_t op;
    uint64_t start_ns, end_ns; /* the card's clock (%globaltimer), unscaled */
    uint64_t blocks;           /* blocks that ran */
    uint32_t blocks_missed;    /* blocks of the grid that did not run once */
    uint32_t blocks_twice;     /* blocks that ran more than once */
};

struct vgpu_placement {
    struct vgpu_msg_header h;
    uint64_t op;
    uint64_t first_block;
    uint32_t count;
    uint32_t reserved;
    uint16_t sm[VGPU_PLACEMENTS]; /* physical SM of block first_block + i */
};

enum vgpu_query_what {
    VGPU_QUERY_STATE,
    VGPU_QUERY_LOCK,  /* clocks between min_mhz and max_mhz */
    VGPU_QUERY_RESET, /* as the card likes */
    VGPU_QUERY_WHAT_MAX,
};

enum vgpu_query_result {
    VGPU_QUERY_OK,
    VGPU_QUERY_INVALID,
    VGPU_QUERY_NOT_SUPPORTED, /* nothing is known of the card's power */
    VGPU_QUERY_NO_PERMISSION,
};

struct vgpu_query {
    struct vgpu_msg_header h;
    uint32_t card;
    uint32_t what; /* enum vgpu_query_what */
    uint32_t min_mhz, max_mhz;
};

struct vgpu_answer { /* the card's state, whatever was asked */
    struct vgpu_msg_header h;
    int32_t result;                                  /* enum vgpu_query_result */
    uint32_t min_mhz, max_mhz, step_mhz, memory_mhz; /* supported */
    uint32_t mhz, locked;
    uint32_t power_mw, limit_mw;
    uint32_t reserved;
    uint64_t energy_mj; /* since the server began, in the card's time */
    uint64_t busy_ns;   /* mean over SMs */
};

struct vgpu_fault {
    struct vgpu_msg_header h;
    uint64_t ctx;
    uint64_t op;    /* the launch at fault, 0 when none */
    int32_t result; /* CUresult that the context reports from now on */
    uint32_t reserved;
    char text[256]; /* what a real card would have done, and why */
};
