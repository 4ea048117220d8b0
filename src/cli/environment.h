/* What `lithos run` puts into the environment of the program it becomes. */
#pragma once

#include "proto/message.h"

/* LD_PRELOAD with the library first and what was there before, less the library itself. The caller frees;
 * NULL: no memory. */
char *lithos_preload_value(const char *library, const char *old);

/* Sets this process's environment for the tenant just admitted. grant_text: LITHOS_GRANT, or NULL when the
 * tenant is not held by masks. 0; -EINVAL when the library's path cannot stand in LD_PRELOAD (a blank or
 * colon in it); -ENOMEM. */
int lithos_environment_apply(const struct lithos_msg_admitted *admitted, const char *library,
                             const char *socket, const char *grant_text);
