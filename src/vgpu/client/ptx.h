/* PTX text, parsed and interpreted: enough of it for the kernels that LithOS brings along (docs/virtual-gpu.md lists
 * what is understood). Anything else is refused with a message that names the line. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PTX_NAME_BYTES 128u
#define PTX_MAX_VARS 256u /* variables of a module */

struct ptx_param {
    uint32_t offset, size;
};

struct ptx_instr;

struct ptx_entry {
    char name[PTX_NAME_BYTES];
    bool timing_only; /* "// lithos-vgpu: timing-only" before it: never interpreted */
    uint32_t param_count, param_bytes;
    struct ptx_param *params;
    uint32_t shared_bytes;  /* static; the module's shared variables included */
    uint32_t reg_count;     /* virtual registers */
    uint32_t registers;     /* a thread, estimated as a compiler would allocate them */
    uint32_t max_threads;   /* .maxntid or .reqntid, 0 = no limit */
    uint32_t cluster[3];    /* .reqnctapercluster, 0 = none */
    struct ptx_instr *code; /* of code_count */
    uint32_t code_count;
};

struct ptx_var { /* a .global or .const variable */
    char name[PTX_NAME_BYTES];
    uint32_t size, align;
    uint8_t *init; /* size bytes, or NULL for zeros */
};

struct ptx_program {
    int version, target; /* 70 for 7.0; 52 for sm_52 */
    uint32_t entry_count, var_count;
    struct ptx_entry *entries;
    struct ptx_var *vars;
};

/* text of len bytes (a NUL among them ends it). 0; -EINVAL for what is not PTX, -ENOTSUP for PTX that is not
 * understood here (message names line and word), -ENOMEM. The program is the caller's (ptx_free). */
int ptx_parse(const char *text, size_t len, struct ptx_program **ret_program, char *message,
              size_t message_size);
void ptx_free(struct ptx_program *program);
const struct ptx_entry *ptx_find(const struct ptx_program *program, const char *name);

/* ---- running */
struct ptx_range {
    uint64_t address;
    uint64_t size;
    uint8_t *host;
};

struct ptx_memory { /* sorted by address, not overlapping */
    size_t count;
    struct ptx_range ranges[];
};

struct ptx_scratch { /* of the heap */
    uint8_t *bytes;
    size_t size;
};

struct ptx_launch {
    uint32_t grid[3], block[3], cluster[3]; /* grid: as the kernel sees it */
    uint32_t shared_dynamic;
    const uint8_t *params;   /* param_bytes */
    const uint64_t *globals; /* device address of each variable of the program */
    const struct ptx_memory *memory;
    uint32_t nsmid;
    uint64_t start_ns; /* the card's clock when the launch began */
    uint64_t budget;   /* instructions left: counted down across blocks */
    char message[256]; /* why it failed */
    /* What blocks work in, kept from one to the next: the caller's, as what is in it; NULL: each has its own. */
    struct ptx_scratch *scratch;
};

/* One block, ctaid as the kernel sees it. 0; -EFAULT an access out of range; -EOVERFLOW the budget is spent;
 * -EPROTO a barrier that can never be met; -ENOMEM. */
int ptx_run_block(const struct ptx_entry *entry, struct ptx_launch *launch, const uint32_t ctaid[3],
                  uint32_t smid);
