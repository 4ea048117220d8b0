/* Texts of a trace in JSON. */
#pragma once

#include <jansson.h>

/* A JSON string: any text, of which bytes that make it no UTF-8 become '?'. A new reference, NULL: no memory. */
json_t *lithos_trace_json_text(const char *text);
