#include "model/json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "model/model.h"

#define FILE_MAX (1u << 20)

int lithos_model_fail(char *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error, LITHOS_MODEL_ERROR_BYTES, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

int lithos_model_json(const char *text, char *error, json_t **ret_root)
{
    json_error_t where;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return lithos_model_fail(error, "line %d: %s", where.line, where.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return lithos_model_fail(error, "not a JSON object");
    }
    *ret_root = root;
    return 0;
}

int lithos_model_read(const char *path, char *error, char **ret_text)
{
    size_t len;
    int r = lithos_read_file(path, FILE_MAX, ret_text, &len);
    if (r < 0)
        snprintf(error, LITHOS_MODEL_ERROR_BYTES, "cannot be read: %s", strerror(-r));
    return r;
}
