/* The status document as text for people. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* 0 or -ENOMEM. */
int lithos_status_print(const json_t *document, FILE *out);
/* Its line on a tenant's turns on the card: "slice" of the document, an object. */
void lithos_slice_print(const json_t *slice, FILE *out);
