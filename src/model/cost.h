/* What a block of a kernel costs, by kernel name (share/lithos/costs/NAME.json). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/card.h"
#include "model/model.h"

struct lithos_costs; /* opaque: the rules of one or more cost files */

/* No rule yet but a built-in default. 0 or -ENOMEM. Freed with lithos_costs_free. */
int lithos_costs_create(struct lithos_costs **ret_costs);
void lithos_costs_free(struct lithos_costs *costs);
/* Add the rules of a cost file's text; a kernel (or the default) named before is replaced. 0; -EINVAL with
 * what is wrong in error, the rules then as before; -ENOMEM. */
int lithos_costs_merge(struct lithos_costs *costs, const char *text, char error[LITHOS_MODEL_ERROR_BYTES]);
int lithos_costs_merge_file(struct lithos_costs *costs, const char *path,
                            char error[LITHOS_MODEL_ERROR_BYTES]);
/* Cost of a block of `threads` threads of that kernel with these parameters. A kernel no rule names costs the
 * default. ret_interpret: whether its effects on memory are to be carried out. Never fails. */
void lithos_costs_find(const struct lithos_costs *costs, const char *kernel, const uint64_t *params,
                       size_t param_count, uint32_t threads, struct lithos_block_cost *ret_cost);
