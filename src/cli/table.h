/* Tables of text: columns as wide as their widest cell, two blanks between. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#define LITHOS_TABLE_COLUMNS_MAX 16u

struct lithos_table; /* opaque */

/* A table with these headings. A heading that starts with '>' has its column set to the right. NULL: no
 * memory. */
struct lithos_table *lithos_table_new(const char *const *headings, unsigned columns);
void lithos_table_free(struct lithos_table *t);
/* The next cell, row by row. Out of memory is remembered and told by lithos_table_print. */
void lithos_table_cell(struct lithos_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints headings and rows; rows that are not full end with empty cells. 0 or -ENOMEM. */
int lithos_table_print(const struct lithos_table *t, FILE *out);
