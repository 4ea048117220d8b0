/* The status document as text for people. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* 0 or -ENOMEM. */
int lithos_status_print(const json_t *document, FILE *out);
/* Its line on a tenant's turns on the card: "slice" of the document, an object. */
void lithos_slice_print(const json_t *slice, FILE *out);

/* ---- rightsize_print.c ---- */

/* Its line on how few TPCs its kernels run: "rightsize" of the document, of one that said a slip. */
void lithos_rightsize_print(const json_t *rightsize, FILE *out);
/* One for each tenant that said a slip. */
void lithos_rightsize_print_all(const json_t *document, FILE *out);
/* The same, and each kernel known; nothing for one that said no slip. */
void lithos_rightsize_explain(const json_t *rightsize, FILE *out);
