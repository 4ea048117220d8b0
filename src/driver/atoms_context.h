/* What atoms need in a context: the prelude's code, and the entries that say where each atom begins. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/qmd_hook.h"
#include "hw/prelude.h"

/* Entries of a context: kernels times cuts that it has ever seen. */
#define LITHOS_ATOMS_ENTRIES 16384u

struct lithos_atoms_context;

/* That of the current context, made at the first call in it; NULL: there is none and may never be, or not yet. Calls the driver. */
struct lithos_atoms_context *lithos_atoms_context_here(void);
/* Address of the code of a kind (hw/prelude.h). */
uint64_t lithos_atoms_context_code(const struct lithos_atoms_context *c, unsigned kind);
/* Is that the address of one of them? */
bool lithos_atoms_context_is_prelude(const struct lithos_atoms_context *c, uint64_t address);
/* Where the code lies has been found out. */
void lithos_atoms_context_located(struct lithos_atoms_context *c, uint64_t code);
/* Registers that a kernel must have. */
uint32_t lithos_atoms_context_registers(const struct lithos_atoms_context *c);
/* An entry with that content, written if it is new: its address for the GPU, 0 when there is no room. Entries never change, so an
 * address stays good as long as the context. For the callback. */
uint64_t lithos_atoms_context_entry(struct lithos_atoms_context *c, const struct lithos_prelude_entry *entry);
/* The one that nothing survives. */
uint64_t lithos_atoms_context_nothing(const struct lithos_atoms_context *c);
/* Have new entries copied to the GPU's own memory, where reading them takes a tenth of the time; they are used from there once
 * the copy is over. Calls the driver, does not wait. */
void lithos_atoms_context_promote(struct lithos_atoms_context *c);

/* The same, and wait, but not for long, until they are. */
void lithos_atoms_context_settle(struct lithos_atoms_context *c);
/* Which one it is of, and of which device. */
CUcontext lithos_atoms_context_handle(const struct lithos_atoms_context *c);
CUdevice lithos_atoms_context_device(const struct lithos_atoms_context *c);
/* Calls that may not be made while some stream captures, unless the thread says that it knows what it is doing: says so with
 * CU_STREAM_CAPTURE_MODE_RELAXED, and is given what to say afterwards; negative: the driver does not want to know. */
int lithos_atoms_relax_capture(int mode);

void lithos_atoms_contexts_end(CUcontext ctx, CUdevice device);
void lithos_atoms_contexts_ended(CUcontext ctx, CUdevice device, bool ended);
void lithos_atoms_contexts_forget(void);
