#include "cli/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

struct lithos_table {
    unsigned columns;
    bool failed;
    size_t count, room;
    char **cells; /* the headings first */
};

static void add(struct lithos_table *t, char *text)
{
    if (text && t->count == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        char **cells = reallocarray(t->cells, room, sizeof(*cells));
        if (cells) {
            t->cells = cells;
            t->room = room;
        }
    }
    if (!text || t->count == t->room) {
        free(text);
        t->failed = true;
        return;
    }
    t->cells[t->count++] = text;
}

struct lithos_table *lithos_table_new(const char *const *headings, unsigned columns)
{
    struct lithos_table *t = columns && columns <= LITHOS_TABLE_COLUMNS_MAX ? calloc(1, sizeof(*t)) : NULL;

    if (!t)
        return NULL;
    t->columns = columns;
    for (unsigned i = 0; i < columns; i++)
        add(t, strdup(headings[i]));
    return t;
}

void lithos_table_free(struct lithos_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void lithos_table_cell(struct lithos_table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    add(t, text);
}

/* Characters on the screen: bytes that do not continue a UTF-8 character. */
static size_t width(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static const char *cell_text(const struct lithos_table *t, size_t i)
{
    if (i >= t->count)
        return "";
    return i < t->columns && t->cells[i][0] == '>' ? t->cells[i] + 1 : t->cells[i];
}

int lithos_table_print(const struct lithos_table *t, FILE *out)
{
    size_t widths[LITHOS_TABLE_COLUMNS_MAX] = {0};
    size_t rows = (t->count + t->columns - 1) / t->columns;

    if (t->failed)
        return -ENOMEM;
    for (size_t i = 0; i < t->count; i++)
        widths[i % t->columns] = LITHOS_MAX(widths[i % t->columns], width(cell_text(t, i)));
    for (size_t row = 0; row < rows; row++) {
        size_t pad = 0; /* owed, so that no line ends in blanks */
        for (unsigned c = 0; c < t->columns; c++) {
            const char *text = cell_text(t, row * t->columns + c);
            size_t fill = widths[c] - width(text);
            bool right = t->cells[c][0] == '>';
            if (*text) {
                fprintf(out, "%*s%s", (int)(pad + (right ? fill : 0)), "", text);
                pad = right ? 0 : fill;
            } else {
                pad += fill;
            }
            pad += 2;
        }
        fputc('\n', out);
    }
    return 0;
}
