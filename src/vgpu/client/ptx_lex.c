/* PTX text to words. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/ptx_internal.h"

static const char marker[] = "lithos-vgpu: timing-only";

/* The comment says that and nothing before it: a text that only speaks of it does not mean it. */
static bool is_marker(const char *p, const char *eol)
{
    while (p < eol && isspace((unsigned char)*p))
        p++;
    return (size_t)(eol - p) >= sizeof marker - 1 && !memcmp(p, marker, sizeof marker - 1);
}

static void skip_blank(struct ptx_lexer *lx)
{
    while (lx->p < lx->end) {
        if (*lx->p == '\n') {
            lx->line++;
            lx->p++;
        } else if (isspace((unsigned char)*lx->p)) {
            lx->p++;
        } else if (lx->end - lx->p >= 2 && lx->p[0] == '/' && lx->p[1] == '/') {
            const char *eol = memchr(lx->p, '\n', (size_t)(lx->end - lx->p));
            eol = eol ? eol : lx->end;
            lx->timing_only |= is_marker(lx->p + 2, eol);
            lx->p = eol;
        } else if (lx->end - lx->p >= 2 && lx->p[0] == '/' && lx->p[1] == '*') {
            const char *close = memmem(lx->p + 2, (size_t)(lx->end - lx->p - 2), "*/", 2);
            const char *stop = close ? close + 2 : lx->end;
            for (; lx->p < stop; lx->p++)
                lx->line += *lx->p == '\n';
        } else {
            return;
        }
    }
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

/* 0f3F800000, 0d3FF0000000000000: bits of a float. */
static bool float_bits(struct ptx_lexer *lx, const char *text)
{
    if (text[0] != '0' || !strchr("fFdD", text[1]) || !text[1])
        return false;
    bool single = text[1] == 'f' || text[1] == 'F';
    if (strlen(text) != (single ? 10u : 18u) ||
        strspn(text + 2, "0123456789abcdefABCDEF") != strlen(text) - 2)
        return false;
    uint64_t bits = strtoull(text + 2, NULL, 16);
    lx->kind = PTX_T_FLOAT;
    if (single) {
        uint32_t b = (uint32_t)bits;
        float f;
        memcpy(&f, &b, sizeof f);
        lx->real = (double)f;
    } else {
        memcpy(&lx->real, &bits, sizeof bits);
    }
    return true;
}

static void number(struct ptx_lexer *lx)
{
    char text[64];
    size_t n = 0;
    const char *p = lx->p;
    while (p < lx->end && n < sizeof text - 1) {
        bool exponent_sign = (*p == '+' || *p == '-') && n && (text[n - 1] == 'e' || text[n - 1] == 'E') &&
                             text[1] != 'x' && text[1] != 'X' && memchr(text, '.', n);
        if (!isalnum((unsigned char)*p) && *p != '.' && !exponent_sign)
            break;
        text[n++] = *p++;
    }
    text[n] = 0;
    lx->p = p;
    if (float_bits(lx, text))
        return;
    char *end;
    if (strchr(text, '.') && text[1] != 'x' && text[1] != 'X') {
        lx->real = strtod(text, &end);
        lx->kind = *end ? PTX_T_BAD : PTX_T_FLOAT;
        return;
    }
    bool binary = text[0] == '0' && (text[1] == 'b' || text[1] == 'B');
    errno = 0;
    lx->integer = (int64_t)strtoull(binary ? text + 2 : text, &end, binary ? 2 : 0);
    if (*end == 'U')
        end++;
    lx->kind = *end || errno ? PTX_T_BAD : PTX_T_INT;
}

void ptx_next(struct ptx_lexer *lx)
{
    skip_blank(lx);
    lx->text[0] = 0;
    if (lx->p >= lx->end) {
        lx->kind = PTX_T_END;
        return;
    }
    char c = *lx->p;
    if (isdigit((unsigned char)c)) {
        number(lx);
        return;
    }
    if (word_char(c)) {
        size_t n = 0;
        while (lx->p < lx->end && word_char(*lx->p) && n < sizeof lx->text - 1)
            lx->text[n++] = *lx->p++;
        lx->text[n] = 0;
        /* A word that does not fit is no name that anything here has. */
        lx->kind = lx->p < lx->end && word_char(*lx->p) ? PTX_T_BAD : PTX_T_WORD;
        return;
    }
    lx->p++;
    if (c == '"') {
        while (lx->p < lx->end && *lx->p != '"' && *lx->p != '\n')
            lx->p++;
        lx->kind = lx->p < lx->end && *lx->p == '"' ? PTX_T_STRING : PTX_T_BAD;
        lx->p += lx->kind == PTX_T_STRING;
        return;
    }
    lx->kind = PTX_T_PUNCT;
    lx->punct = c;
    if (lx->end - lx->p >= 1 && c == ':' && *lx->p == ':')
        lx->kind = PTX_T_BAD;
}
