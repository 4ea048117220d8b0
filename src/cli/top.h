/* A frame of `lithos top`, made from the status document and nothing else: lines of text, each character with a style. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LITHOS_TOP_COLUMNS_MAX 200u
#define LITHOS_TOP_ROWS_MAX 200u
#define LITHOS_TOP_OWNERS 6u /* colours for tenants */

enum lithos_top_style {
    LITHOS_TOP_PLAIN,
    LITHOS_TOP_STRONG,
    LITHOS_TOP_FAINT,
    LITHOS_TOP_WARNING,
    LITHOS_TOP_SELECTED,
    LITHOS_TOP_OWNER, /* and the LITHOS_TOP_OWNERS - 1 that follow: of a tenant's colour */
    LITHOS_TOP_STYLE_MAX = LITHOS_TOP_OWNER + LITHOS_TOP_OWNERS,
};

enum lithos_top_sort {
    LITHOS_TOP_BY_NAME,
    LITHOS_TOP_BY_TPCS,
    LITHOS_TOP_BY_BUSY,
    LITHOS_TOP_BY_TIME,
    LITHOS_TOP_BY_RATE,
    LITHOS_TOP_BY_P50,
    LITHOS_TOP_BY_P99,
    LITHOS_TOP_BY_QUEUE,
    LITHOS_TOP_SORT_MAX,
};

struct lithos_top_view {
    unsigned rows, columns; /* of the screen; held to the bounds above */
    enum lithos_top_sort sort;
    int selected; /* row of the table, or -1; held to the tenants there are */
    bool keys;    /* a last line that says which keys there are */
};

struct lithos_top_frame {
    unsigned rows;
    char text[LITHOS_TOP_ROWS_MAX][LITHOS_TOP_COLUMNS_MAX + 1];
    uint8_t style[LITHOS_TOP_ROWS_MAX][LITHOS_TOP_COLUMNS_MAX];
};

/* What does not fit the view is left out. *view's selection is put in range. */
void lithos_top_frame(const json_t *document, struct lithos_top_view *view,
                      struct lithos_top_frame *ret_frame);
void lithos_top_print(const struct lithos_top_frame *frame, FILE *out);
