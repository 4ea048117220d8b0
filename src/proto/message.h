/* Messages between lithosd and its clients, over SOCK_SEQPACKET: one packet, one struct, fixed size by type.
 *
 * A client asks, the daemon answers each request once, in order, but for WAKE, which has no answer; the daemon never speaks
 * first.
 * Nothing received is trusted: lithos_message_validate first. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"

#define LITHOS_MSG_MAGIC 0x4c544853u /* "LTHS" */
#define LITHOS_MSG_VERSION 7u
#define LITHOS_NAME_MAX 64u /* tenant names, the end included */
#define LITHOS_TEXT_MAX 1024u
#define LITHOS_PATH_BYTES 256u
#define LITHOS_TOKEN_BYTES 16u

enum lithos_msg_type {
    LITHOS_MSG_ADMIT = 1, /* `lithos run`: struct lithos_msg_admit -> admitted | error */
    LITHOS_MSG_ADMITTED,
    LITHOS_MSG_ATTACH, /* liblithos: struct lithos_msg_attach -> attached + the arena's fd | error */
    LITHOS_MSG_ATTACHED,
    LITHOS_MSG_STATUS, /* header only -> document + a memfd with JSON (docs/status.md) */
    LITHOS_MSG_DOCUMENT,
    LITHOS_MSG_SET,      /* `lithos set`: struct lithos_msg_set -> ok | error */
    LITHOS_MSG_SHUTDOWN, /* header only -> ok; the daemon then ends as on SIGTERM */
    LITHOS_MSG_OK,
    LITHOS_MSG_ERROR, /* struct lithos_msg_error */
    LITHOS_MSG_TRACE, /* struct lithos_msg_trace, START with the fd of a regular file -> traced | error */
    LITHOS_MSG_TRACED,
    LITHOS_MSG_EXPLAIN, /* `lithos explain`: struct lithos_msg_explain -> document + a memfd with JSON (docs/status.md) */
    LITHOS_MSG_WAKE, /* liblithos, attached: header only; a record has come that the daemon asked to be woken for */
    LITHOS_MSG_TYPE_MAX,
};

struct lithos_msg_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t size;     /* bytes of the whole message */
    uint32_t reserved; /* 0 */
};

enum lithos_quota_unit {
    LITHOS_QUOTA_TPCS,
    LITHOS_QUOTA_PERCENT, /* of the GPU's TPCs, in hundredths of a percent: 40 % is 4000 */
    LITHOS_QUOTA_UNIT_MAX,
};

struct lithos_quota {
    uint32_t unit;  /* enum lithos_quota_unit */
    uint32_t value; /* 0: none of its own, it lives on what is lent; best-effort tenants only, in TPCs */
};

#define LITHOS_SHARE_WEIGHT 1u
#define LITHOS_SHARE_FLOOR 2u
#define LITHOS_SHARE_SLIP 4u
#define LITHOS_SHARE_SLO 8u
#define LITHOS_SHARE_GRAPHS 16u
#define LITHOS_SHARE_BEST_EFFORT                \
    (LITHOS_SHARE_WEIGHT | LITHOS_SHARE_FLOOR | \
     LITHOS_SHARE_GRAPHS) /* what means something for such tenants */
#define LITHOS_SHARE_HIGH (LITHOS_SHARE_SLIP | LITHOS_SHARE_SLO)
#define LITHOS_SHARE_WEIGHT_MAX 1000u
#define LITHOS_SHARE_SLIP_MAX_PPM 100000000u
#define LITHOS_SHARE_SLO_MAX_NS (3600 * LITHOS_NSEC_PER_SEC)

/* Where a tenant's CUDA graphs run. */
enum lithos_graphs {
    LITHOS_GRAPHS_OWN,    /* on its own TPCs, or where a tenant without any has its refuge */
    LITHOS_GRAPHS_BORROW, /* on all of the card, with stops in them where they wait while an owner is at work */
    LITHOS_GRAPHS_MAX,
};

/* What a tenant asks of the scheduler beside its quota (docs/scheduler.md). */
struct lithos_share {
    uint32_t
        given; /* LITHOS_SHARE_*: these were said; the others are 0 here, and as the daemon has them by default */
    uint32_t weight;     /* of its share of what is lent; 0: takes what nobody else wants */
    uint32_t floor_tpcs; /* it gets so many when it has waited for too long, whatever their owner does */
    uint32_t slip_ppm;   /* requests may take that much of their time alone, 1100000 for 1.1; 0: not said */
    uint64_t slo_ns;     /* requests are to be over within; 0: not said */
    uint32_t graphs;     /* enum lithos_graphs: of those that it makes from now on */
    uint32_t reserved;
};

/* How the quota is held. */
enum lithos_mode {
    LITHOS_MODE_MASK,   /* TPC mask on every launch */
    LITHOS_MODE_COARSE, /* CUDA_MPS_ACTIVE_THREAD_PERCENTAGE: a number of SMs, not which */
    LITHOS_MODE_NONE,   /* neither can be had (no hook and no MPS): admitted, accounted, not held */
    LITHOS_MODE_MAX,
};

struct lithos_msg_admit {
    struct lithos_msg_header h;
    char name[LITHOS_NAME_MAX];    /* "" = the daemon makes one from `command` */
    char command[LITHOS_NAME_MAX]; /* for people: basename of argv[0] */
    struct lithos_quota quota;     /* on each GPU named */
    uint32_t want_coarse;          /* 1: the app cannot run with the hook (green contexts) */
    uint32_t gpu_count;            /* 0: the daemon picks the GPU with most room among `visible` */
    uint8_t gpus[LITHOS_MAX_GPUS][LITHOS_UUID_BYTES];
    uint32_t visible_count; /* 0: CUDA_VISIBLE_DEVICES not set, all GPUs */
    uint32_t class;         /* enum lithos_class */
    uint8_t visible[LITHOS_MAX_GPUS][LITHOS_UUID_BYTES];
    struct lithos_atom_policy atom;
    struct lithos_share share;
};

struct lithos_msg_admitted {
    struct lithos_msg_header h;
    uint64_t tenant;
    uint8_t token[LITHOS_TOKEN_BYTES]; /* secret that lets children attach: goes into LITHOS_TENANT */
    uint32_t mode;                     /* enum lithos_mode */
    uint32_t mps;                      /* 1: mps_pipe_dir is to be used */
    uint32_t thread_percentage;        /* for LITHOS_MODE_COARSE, else 0 */
    uint32_t client_priority;          /* 1: MPS is to let the launches of others go first */
    char name[LITHOS_NAME_MAX];
    char mps_pipe_dir[LITHOS_PATH_BYTES];
    char
        note[LITHOS_TEXT_MAX]; /* "" or what the user should know, for example that tenants will take turns */
    struct lithos_grant grant;
};

struct lithos_msg_attach {
    struct lithos_msg_header h;
    uint64_t tenant;
    uint8_t token[LITHOS_TOKEN_BYTES];
    uint32_t hook_active; /* 1: the QMD hook is in place */
    uint32_t reserved;
    char process[LITHOS_NAME_MAX]; /* for people */
};

struct lithos_msg_attached {
    struct lithos_msg_header h;
    uint64_t tenant;
    uint32_t arena_bytes; /* size of the memfd that comes with this message */
    uint32_t reserved;
};

struct lithos_msg_document {
    struct lithos_msg_header h;
    uint64_t bytes; /* length of the JSON text in the memfd that comes with this message */
};

#define LITHOS_SET_QUOTA 1u
#define LITHOS_SET_ATOM 2u
#define LITHOS_SET_CLASS 4u
#define LITHOS_SET_SHARE 8u /* what share.given names; the rest stays */

struct lithos_msg_set {
    struct lithos_msg_header h;
    char name[LITHOS_NAME_MAX];
    uint32_t what;  /* LITHOS_SET_*: at least one; what is not named stays as it is, and is 0 here */
    uint32_t class; /* enum lithos_class */
    struct lithos_quota quota;
    struct lithos_atom_policy atom;
    struct lithos_share share;
};

struct lithos_msg_explain {
    struct lithos_msg_header h;
    char name[LITHOS_NAME_MAX];
};

enum lithos_trace_action {
    LITHOS_TRACE_START, /* record into the file that comes along until STOP or the connection's end */
    LITHOS_TRACE_STATE, /* how is it going? An error when it has failed (a full disk) */
    LITHOS_TRACE_STOP,
    LITHOS_TRACE_ACTION_MAX,
};

struct lithos_msg_trace {
    struct lithos_msg_header h;
    uint32_t action; /* enum lithos_trace_action */
    uint32_t reserved;
    char tenant[LITHOS_NAME_MAX]; /* START: this one alone; "" all */
};

struct lithos_msg_traced { /* since START */
    struct lithos_msg_header h;
    uint64_t events, kernels, dropped; /* dropped: launches without an event, whatever the reason */
    uint64_t bytes;
};

struct lithos_msg_error {
    struct lithos_msg_header h;
    int32_t error; /* negative errno */
    uint32_t reserved;
    char text[LITHOS_TEXT_MAX]; /* what happened, to what, what to do */
};

union lithos_message {
    struct lithos_msg_header h;
    struct lithos_msg_admit admit;
    struct lithos_msg_admitted admitted;
    struct lithos_msg_attach attach;
    struct lithos_msg_attached attached;
    struct lithos_msg_document document;
    struct lithos_msg_set set;
    struct lithos_msg_explain explain;
    struct lithos_msg_error error;
    struct lithos_msg_trace trace;
    struct lithos_msg_traced traced;
};

/* Bytes of a message of that type; 0 for a type that does not exist. */
size_t lithos_message_size(enum lithos_msg_type type);
/* Zero *m, fill in its header. */
void lithos_message_init(union lithos_message *m, enum lithos_msg_type type);
/* Everything that can be checked without knowing the daemon's state: magic, version, type, size, strings that end,
 * counts in range, enums in range, quota in range (TPCs <= 128, 0 only for best-effort tenants; 0 < percent <= 100 %),
 * reserved fields 0.
 * 0; -EPROTO (not ours or damaged); -EPROTONOSUPPORT (another version); -EINVAL (a value out of range).
 * ret_why (may be NULL): a static string for people. */
int lithos_message_validate(const union lithos_message *m, size_t received_bytes, const char **ret_why);

/* "high", "best-effort". */
const char *lithos_class_name(enum lithos_class class);
/* 0; -EINVAL for anything else. */
int lithos_class_parse(const char *text, uint32_t *ret_class);
/* "40%", "37.5%", "26", "0" -> quota. 0; -EINVAL for anything else; -ERANGE for 0 %, over 100 % or over 128 TPCs. */
int lithos_quota_parse(const char *text, struct lithos_quota *ret_quota);
/* "40%" or "26". Returns text. */
char *lithos_quota_format(const struct lithos_quota *q, char text[16]);

/* ---- share.c ---- */

/* 0; -EINVAL: a value out of range, or of what was not said. */
int lithos_share_validate(const struct lithos_share *s);
/* What one option says: exactly one of LITHOS_SHARE_*; "off" for slip and SLO. 0; -EINVAL for what is not understood or out of
 * range. */
int lithos_share_parse(uint32_t option, const char *text, struct lithos_share *share);
/* What was said in `to`, and otherwise in `from`. */
void lithos_share_merge(struct lithos_share *to, const struct lithos_share *from);
/* "15ms", "2.5ms", "250us", "1s" -> ns; 0, -EINVAL, -ERANGE (0, or over an hour). */
int lithos_duration_parse(const char *text, uint64_t *ret_ns);
/* The most of `lithos run --gather`. */
#define LITHOS_GATHER_MAX_NS LITHOS_NSEC_PER_SEC
