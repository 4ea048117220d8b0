/* Names of kernels: which handle of a process is which function, and what the function is called. Bounded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/records.h"

#define LITHOSD_NAMES_MAX 4096u      /* functions of a tenant, handles of a process */
#define LITHOSD_NAME_BYTES_MAX 1023u /* of a name that are kept */

struct lithosd_name {
    uint64_t hash;
    char *text;
};

struct lithosd_names {
    uint32_t count, room;
    struct lithosd_name *name; /* open addressing: room slots, hash 0 free */
};

struct lithosd_handle {
    uint64_t handle, hash; /* hash 0: not whole yet */
    uint16_t have, total;
    char *text; /* while it is put together */
};

struct lithosd_handles {
    uint32_t count, room;
    struct lithosd_handle *handle; /* open addressing, handle 0 free */
};

/* A piece of a name; once the name is whole it enters names. Pieces may come again, and for a handle that is used anew. */
void lithosd_names_piece(struct lithosd_names *names, struct lithosd_handles *handles,
                         const struct lithos_record *r);
/* Hash of the name of a handle; of the handle itself while its name is not known. Never 0. */
uint64_t lithosd_names_function(const struct lithosd_handles *handles, uint64_t handle);
/* NULL: not known. */
const char *lithosd_names_text(const struct lithosd_names *names, uint64_t hash);
void lithosd_names_finish(struct lithosd_names *names);
void lithosd_handles_finish(struct lithosd_handles *handles);
