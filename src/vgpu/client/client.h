/* Inside the virtual libcuda.so.1: what its files share. Nothing here is seen from outside.
 *
 * Two locks. `issue` puts calls that give the card work into one order; it may be held while a send to the server
 * blocks. `lock` guards all other state, is held briefly, and is all that the reader thread ever takes: so a full
 * socket can always drain. Order: issue before lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "vgpu/client/ptx.h"
#include "vgpu/wire.h"

#define CU_API(name, ...)                     \
    LITHOS_EXPORT CUresult name(__VA_ARGS__); \
    CUresult name(__VA_ARGS__)

/* Results that cuda_abi.h does not name. */
enum {
#define RESULT(name, value, text) VGPU_##name = value,
#include "vgpu/client/results.def"
#undef RESULT
};

#define VGPU_MAX_OUTSTANDING 1024u /* ops in a stream before a launch waits, as a card's queue */
#define VGPU_MAX_PARAM_BYTES 4096u
#define VGPU_MEMSET_KERNEL "__lithos_vgpu_memset"

enum vgpu_handle {
    VGPU_H_NONE,
    VGPU_H_CTX,
    VGPU_H_MODULE,
    VGPU_H_FUNC,
    VGPU_H_LIBRARY,
    VGPU_H_KERNEL,
    VGPU_H_STREAM,
    VGPU_H_EVENT,
    VGPU_H_GRAPH,
    VGPU_H_GRAPH_NODE,
    VGPU_H_GRAPH_EXEC,
    VGPU_H_LINK,
};

struct vgpu_device {
    struct vgpu_card card;
    int sm_count; /* what the app is told: less under CUDA_MPS_ACTIVE_THREAD_PERCENTAGE */
    uint64_t used_bytes;
    struct CUctx_st *primary; /* NULL until retained */
    unsigned primary_refs;
    unsigned primary_flags;
};

/* A point in a stream: an event's record, or one made to order two streams. References are counted under lock. */
struct vgpu_point {
    unsigned refs;
    bool sent, done;
    uint64_t id;
    uint64_t end_ns; /* the card's clock */
};

enum vgpu_stream_kind { VGPU_STREAM_USER, VGPU_STREAM_LEGACY, VGPU_STREAM_PER_THREAD };

struct vgpu_op;
struct CUgraph_st;

/* Nodes of a graph, each once. */
struct vgpu_nodes {
    struct CUgraphNode_st **node;
    uint32_t count, room;
};

struct CUstream_st {
    struct CUstream_st *next; /* of its context */
    struct CUctx_st *ctx;
    uint64_t id;
    enum vgpu_stream_kind kind;
    unsigned flags;
    int priority;
    uint64_t issued, done;       /* ops */
    struct vgpu_op *head, *tail; /* not sent yet: behind a host function, or a mark that is not sent */
    bool host_blocked;           /* a host function of it has not returned */
    bool dirty;                  /* has work the legacy stream has not been ordered after */
    bool destroyed;
    uint64_t legacy_seen;       /* legacy work it has been ordered after */
    struct CUgraph_st *capture; /* being recorded, or NULL */
    struct vgpu_nodes captured; /* the last of it in this stream: what comes next waits for them */
    int capture_mode;
    struct { /* the kernel whose atoms are being launched; address 0: none */
        uint64_t address, next;
        uint32_t grid[3];
        unsigned dim; /* or LITHOS_PRELUDE_LINE */
    } cut;
    uint64_t thread; /* of a per-thread stream */
};

struct CUevent_st {
    struct CUctx_st *ctx;
    unsigned flags;
    struct vgpu_point *mark;    /* of the last record, or NULL */
    uint64_t capture;           /* recorded in the capture with this number, or 0 */
    struct vgpu_nodes captured; /* and behind these nodes */
};

struct CUctx_st {
    struct CUctx_st *next;
    uint64_t id;
    int device; /* index into vgpu.devices */
    unsigned flags;
    bool primary, destroyed;
    CUresult sticky;
    struct CUstream_st *legacy;
    struct CUstream_st *streams; /* all, the legacy one too */
    uint64_t legacy_seq;         /* ops put into the legacy stream */
    uint64_t legacy_marked;      /* legacy_seq that legacy_mark stands for */
    struct vgpu_point *legacy_mark;
    size_t limits[16];
};

struct vgpu_program { /* a parsed PTX text, shared by modules */
    atomic_uint refs;
    struct ptx_program *ptx;
    /* From an image (linker.c): an entry's machine code where it is not the one it was made with, else NULL. */
    struct vgpu_code *code; /* one an entry, or NULL */
};

struct vgpu_code {
    uint8_t *text;
    size_t bytes;
};

struct CUfunc_st {
    struct CUmod_st *module;
    const struct ptx_entry *entry;
    uint64_t address; /* what its QMDs name as program address */
    /* As the driver allows: one thread sets them while another launches. */
    atomic_int max_dynamic_shared;
    atomic_int nonportable_cluster;
    atomic_int carveout;
};

struct CUmod_st {
    struct CUmod_st *next;
    struct CUctx_st *ctx;
    struct vgpu_program *program;
    struct CUfunc_st *funcs; /* one an entry */
    CUdeviceptr *globals;    /* one a module variable */
};

struct CUkern_st {
    struct CUlib_st *library;
    unsigned entry;
};

struct CUlib_st {
    struct vgpu_program *program;
    struct CUkern_st *kernels; /* one an entry */
    struct CUmod_st *modules;  /* one a context that used it */
};

/* What an op does when its DONE arrives. */
enum vgpu_op_kind { VGPU_OP_LAUNCH, VGPU_OP_MEMSET, VGPU_OP_COPY, VGPU_OP_MARK, VGPU_OP_WAIT, VGPU_OP_HOST };

/* A launch whose blocks begin in a prelude. */
struct vgpu_atom {
    bool prelude;
    unsigned kind;          /* of it: what is compared (hw/prelude.h) */
    uint32_t lo, span;      /* blocks below lo end at once; of the linear kind also those from lo + span on */
    uint32_t width, height; /* linear kind: of the grid, as the prelude has them */
    uint64_t entry;         /* where all that stands */
    /* What of the grid it runs: [from, to) of the units, which are slices or blocks; all of them: the whole. */
    unsigned dim; /* LITHOS_PRELUDE_LINE: units are blocks of the line */
    uint64_t from, to, units;
    bool part;
};

struct vgpu_op {
    struct vgpu_op *next;      /* in a stream's queue, or the callback queue */
    struct vgpu_op *hash_next; /* in the table of ops sent */
    uint64_t id;
    struct CUstream_st *stream;
    enum vgpu_op_kind kind;
    struct vgpu_point *mark; /* MARK: the one it makes; WAIT: the one it waits for; a reference either way */
    bool is_word;            /* HOST: not a function. COPY: one word, which others see as a whole */
    unsigned word_flags;     /* CU_STREAM_WAIT_VALUE_*, CU_STREAM_WRITE_VALUE_* */
    union {
        struct {
            uint8_t *dst;
            const uint8_t *src;
            size_t bytes;
            size_t rows, dst_pitch, src_pitch; /* rows 0: bytes in a row, else bytes / rows in each */
            uint8_t *staged;                   /* copy of pageable source memory, freed with the op */
        } copy;
        struct {
            uint8_t *dst;
            size_t count;
            uint32_t value;
            unsigned width;     /* bytes an element: 1, 2, 4 */
            size_t rows, pitch; /* rows 0: count elements in a row, else count / rows in each */
        } memset;
        struct {
            struct CUfunc_st *func; /* named to the hook, not used */
            const struct ptx_entry *entry;
            uint64_t address;             /* of the program, as in the QMD */
            struct vgpu_program *program; /* a reference */
            const CUdeviceptr *globals;
            uint8_t *params; /* freed with the op */
            uint32_t grid[3], block[3], cluster[3], shared_dynamic;
            bool cooperative;
            /* What the QMD asks for after the hook: clusters (blocks when there are none), blocks a cluster. */
            uint32_t qmd_grid[3], qmd_cluster[3];
            struct vgpu_atom atom;
            bool nothing;        /* the hook has left it no block */
            uint16_t *placement; /* SM of each block, UINT16_MAX = never placed */
            uint64_t placement_blocks;
            struct lithos_tpcset mask;
            bool masked;
        } launch;
        struct {
            void (*fn)(void *user);
            void (*stream_fn)(CUstream stream, CUresult status, void *user);
            void *user;
        } host;
        struct { /* HOST, is_word: until a word in memory is as it must be (memops.c) */
            CUdeviceptr address;
            uint64_t value;
            unsigned bytes;
        } word;
        CUdeviceptr free_ptr; /* MARK: memory to give back then, or 0 */
    };
    union {
        struct vgpu_msg_header h;
        struct vgpu_launch launch;
        struct vgpu_copy copy;
    } msg;
};

struct vgpu_client {
    pthread_mutex_t issue, lock;
    pthread_cond_t changed; /* an op ended, a context or the connection was lost */
    atomic_bool initialised, forked;
    int fd;        /* to lithos-vgpud */
    int mps_fd;    /* to the MPS server, -1 when not its client */
    CUresult lost; /* what every context reports once the connection is gone, else 0 */
    bool mps;
    uint64_t mps_domain;
    double scale;
    int driver_version;
    unsigned device_count; /* visible */
    struct vgpu_device devices[VGPU_MAX_CARDS];
    struct CUctx_st *contexts;
    struct CUctx_st *busy; /* whose op the reader is carrying out just now */
    atomic_ullong next_id;
};
extern struct vgpu_client vgpu;

/* ---- init.c */
/* 0, or what every call returns before cuInit, after fork, without a server. */
CUresult vgpu_ready(void);
uint64_t vgpu_next_id(void);

/* ---- handles.c: handles are looked up, never followed, before they are known to be alive. */
void vgpu_handle_add(const void *p, enum vgpu_handle kind);
void vgpu_handle_remove(const void *p);
bool vgpu_handle_is(const void *p, enum vgpu_handle kind);

/* ---- link.c */
CUresult vgpu_link_open(const char *path);
/* One message; the connection is lost when that fails. Under issue, not under lock. */
void vgpu_link_send(const void *msg, size_t size);
/* group.c: the context's channel group; without one it is as without (vgpu/rm) */
void vgpu_group_make(const struct CUctx_st *ctx);
void vgpu_group_free(const struct CUctx_st *ctx);
void vgpu_msg_init(struct vgpu_msg_header *h, uint16_t type, size_t size);

/* ---- ops.c */
struct vgpu_op *vgpu_op_new(struct CUstream_st *stream, enum vgpu_op_kind kind);
void vgpu_op_free(struct vgpu_op *op);
/* Put op into its stream, ordered after what the legacy stream rules ask for; op is consumed. wait: until it is done.
 * Returns the context's sticky error if it has one. */
CUresult vgpu_issue(struct vgpu_op *op, bool wait);
CUresult vgpu_issue_mark(struct CUstream_st *stream, struct vgpu_point **ret_mark);
CUresult vgpu_issue_wait(struct CUstream_st *stream, struct vgpu_point *mark);
CUresult vgpu_wait_stream(struct CUstream_st *stream);
CUresult vgpu_wait_context(struct CUctx_st *ctx);
CUresult vgpu_wait_mark(struct CUctx_st *ctx, struct vgpu_point *mark);
void vgpu_point_unref(struct vgpu_point *mark); /* under lock; NULL is fine */
/* From the reader thread: */
void vgpu_op_done(const struct vgpu_done *done);
void vgpu_op_placed(const struct vgpu_placement *placement, size_t size);
/* The context reports `result` from now on; its ops are dropped and waiters wake. Not under lock. */
void vgpu_context_fault(struct CUctx_st *ctx, CUresult result, const char *fmt, ...) LITHOS_PRINTF(3, 4);
void vgpu_fault_message(const struct vgpu_fault *fault);
/* The same for every context, now and later. */
void vgpu_lost(CUresult result, const char *why);

/* ---- ctx.c */
/* The calling thread's context; its sticky error, or INVALID_CONTEXT. */
CUresult vgpu_current(struct CUctx_st **ret_ctx);
/* ---- stream.c */
/* The stream that a handle names: 0, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, or one created. */
CUresult vgpu_stream_get(CUstream handle, bool per_thread, struct CUstream_st **ret_stream);
struct CUstream_st *vgpu_stream_make(struct CUctx_st *ctx, enum vgpu_stream_kind kind, unsigned flags,
                                     int priority);
void vgpu_streams_drop(struct CUctx_st *ctx);

/* ---- memory.c */
/* Host memory behind [address, address + size), or NULL when no one allocation or registration holds it all.
 * ret_device: whether it is device memory (else pinned host memory). Takes lock. */
uint8_t *vgpu_translate(CUdeviceptr address, size_t size, bool *ret_device);
CUresult vgpu_alloc(struct CUctx_st *ctx, size_t size, CUdeviceptr *ret_ptr);
CUresult vgpu_release(CUdeviceptr ptr);
void vgpu_memory_drop(struct CUctx_st *ctx);
/* What a release semaphore of four words does: the time, then the payload, so that who sees the payload sees the time.
 * The memory stays mapped meanwhile. Nothing is written and 0 returned when the context is lost. */
CUresult vgpu_memory_release(const struct CUctx_st *ctx, CUdeviceptr address, uint64_t payload,
                             uint64_t time_ns);
/* The address map as it is now, for the interpreter. */
struct ptx_memory *vgpu_memory_snapshot(void);

/* ---- module.c */
/* PTX text, ended by NUL. options as cuModuleLoadDataEx. */
CUresult vgpu_program_parse(const char *text, unsigned n, const int *options, void **values,
                            struct vgpu_program **ret_program);
void vgpu_program_unref(struct vgpu_program *program);
void vgpu_modules_drop(struct CUctx_st *ctx);
/* A CUfunction, or a CUkernel in the current context. */
CUresult vgpu_func_get(CUfunction handle, struct CUfunc_st **ret_func);
int vgpu_func_attribute(const struct CUfunc_st *func, int attribute, int *ret_value);

/* ---- qmdhook.c */
CUresult vgpu_qmd_table(const void **ret_table);
bool vgpu_qmd_enabled(void);
/* Let the subscriber see and edit the QMD, on this thread. func NULL: a kernel of the driver's own. */
void vgpu_qmd_fire(void *qmd, struct CUctx_st *ctx, struct CUfunc_st *func);

/* ---- launch.c */
struct vgpu_launch_request {
    uint32_t grid[3], block[3], cluster[3];
    uint32_t shared_dynamic;
    bool cooperative;
    bool overlap; /* programmatic stream serialization */
};
/* A launch op with its QMD, hook not fired yet. */
CUresult vgpu_launch_prepare(struct CUfunc_st *func, struct CUstream_st *stream,
                             const struct vgpu_launch_request *r, void **params, void **extra,
                             struct vgpu_op **ret_op);
/* The layout of the card's generation. */
const struct lithos_qmd_layout *vgpu_qmd_layout(const struct vgpu_card *card);
/* Fire the hook and read back what the QMD now asks for. in_graph: it runs later, and more than once. */
CUresult vgpu_launch_hook(struct vgpu_op *op, bool in_graph);
struct vgpu_op *vgpu_op_clone(const struct vgpu_op *op, struct CUstream_st *stream);
CUresult vgpu_memset_prepare(struct CUstream_st *stream, CUdeviceptr dst, uint32_t value, unsigned width,
                             size_t count, struct vgpu_op **ret_op);
/* Issue an op, or record it when its stream is being captured. */
CUresult vgpu_submit(struct vgpu_op *op, bool wait);
/* From the reader: interpret a launch that is done. */
void vgpu_launch_effect(struct vgpu_op *op, const struct vgpu_done *done);
int vgpu_occupancy(const struct CUfunc_st *func, int threads, size_t dynamic_shared);

/* ---- stamp.c */
/* Whether what the QMD asks for at the kernel's end is implemented. */
CUresult vgpu_stamps_check(const struct vgpu_op *op);
/* From the reader, once the kernel's effects are in memory and before the op counts as done. */
void vgpu_stamps_write(const struct vgpu_op *op, uint64_t end_ns);

/* ---- linker.c */
/* Whether an image is an ELF file. */
bool vgpu_image_is_elf(const void *image);
/* Read an image of our own making: its PTX text (free it), and the code of an entry where that was changed. */
CUresult vgpu_image_ptx(const void *image, char **ret_text);
CUresult vgpu_image_code(const void *image, const struct vgpu_card *card, struct vgpu_program *program);

/* ---- atom.c */
/* Machine code that lies at an address, to its end: NULL where there is none. */
const uint8_t *vgpu_code_at(struct CUctx_st *ctx, uint64_t address, size_t *ret_bytes);
/* What an atom's QMD makes of a launch: follows its prelude, fills in op->launch.atom and what is told of it to the server. An
 * error has been said, and the context is lost. */
CUresult vgpu_atom_read(struct vgpu_op *op);
/* It is launched into its stream now: does it go on where the atom before it ended? */
void vgpu_atom_account(struct vgpu_op *op);
/* When its blocks run: what it was told must not have changed. */
CUresult vgpu_atom_check(const struct vgpu_op *op);
/* A block ends in the prelude. */
bool vgpu_atom_exits(const struct vgpu_op *op, const uint32_t ctaid[3]);

/* ---- copy2d.c; from the reader */
void vgpu_copy_effect(const struct vgpu_op *op);
void vgpu_memset_effect(const struct vgpu_op *op);

/* ---- memops.c */
/* A wait for a word or a write of one, as an op. NOT_SUPPORTED: it is neither. */
CUresult vgpu_word_op(struct CUstream_st *stream, const CUstreamBatchMemOpParams *params,
                      struct vgpu_op **ret_op);
/* Of two such ops: whether they differ in no more than an exec's node may change (where, the value, what a wait compares). */
bool vgpu_word_alike(const struct vgpu_op *a, const struct vgpu_op *b);
/* From the reader: all before it in its stream has been done. */
void vgpu_word_wait(struct vgpu_op *op);

/* ---- graph_capture.c */
CUresult vgpu_capture_add(struct CUstream_st *stream, struct vgpu_op *op);
/* An event is recorded in a stream that captures; a stream waits for one that was. */
CUresult vgpu_capture_record(struct CUevent_st *event, struct CUstream_st *stream);
CUresult vgpu_capture_wait(struct CUstream_st *stream, const struct CUevent_st *event);
/* The stream is about to go: what it captures is given up. Not under lock. */
void vgpu_capture_drop(struct CUstream_st *stream);
void vgpu_nodes_free(struct vgpu_nodes *nodes);

#define VGPU_ENTER()                    \
    do {                                \
        CUresult ready_ = vgpu_ready(); \
        if (ready_)                     \
            return ready_;              \
    } while (0)
#define VGPU_TRY(expr)          \
    do {                        \
        CUresult try_ = (expr); \
        if (try_)               \
            return try_;        \
    } while (0)
