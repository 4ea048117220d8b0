/* What the readers of cards and costs share: files, JSON objects, messages. */
#pragma once

#include <jansson.h>

#include "base/util.h"

/* -EINVAL, and the message in error[LITHOS_MODEL_ERROR_BYTES]. */
int lithos_model_fail(char *error, const char *fmt, ...) LITHOS_PRINTF(2, 3);
/* The object in a text; the caller's (json_decref). 0, or -EINVAL with a message that names the line. */
int lithos_model_json(const char *text, char *error, json_t **ret_root);
/* All of a data file; the caller's (free). 0, or negative errno with a message. */
int lithos_model_read(const char *path, char *error, char **ret_text);
