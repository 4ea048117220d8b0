#include "trace/json.h"

#include <stdlib.h>
#include <string.h>

json_t *lithos_trace_json_text(const char *text)
{
    json_t *j = json_string(text);

    if (j)
        return j;
    char *clean = strdup(text);
    for (char *p = clean; p && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    j = clean ? json_string(clean) : NULL;
    free(clean);
    return j;
}
