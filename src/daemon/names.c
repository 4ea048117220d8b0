#include "daemon/names.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static uint64_t mix(uint64_t v)
{
    v = (v ^ v >> 31) * 0x9e3779b97f4a7c15ull;
    return (v ^ v >> 29) | 1;
}

/* FNV-1a; never 0. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3ull;
    return h ? h : 1;
}

/* ---- names ---- */

static struct lithosd_name *name_slot(const struct lithosd_names *names, uint64_t hash)
{
    uint32_t i = (uint32_t)mix(hash) & (names->room - 1);
    while (names->name[i].hash && names->name[i].hash != hash)
        i = (i + 1) & (names->room - 1);
    return &names->name[i];
}

static int names_grow(struct lithosd_names *names)
{
    struct lithosd_names larger = {.count = names->count, .room = names->room ? names->room * 2 : 64};
    larger.name = calloc(larger.room, sizeof *larger.name);
    if (!larger.name)
        return -1;
    for (uint32_t i = 0; i < names->room; i++)
        if (names->name[i].hash)
            *name_slot(&larger, names->name[i].hash) = names->name[i];
    struct lithosd_name *smaller = names->name;
    names->name = larger.name;
    names->room = larger.room;
    free(smaller);
    return 0;
}

static void enter(struct lithosd_names *names, uint64_t hash, const char *text)
{
    if (lithosd_names_text(names, hash) || names->count == LITHOSD_NAMES_MAX)
        return;
    if (2 * (names->count + 1) > names->room && names_grow(names) < 0)
        return;
    struct lithosd_name *slot = name_slot(names, hash);
    slot->text = strdup(text);
    if (!slot->text)
        return;
    slot->hash = hash;
    names->count++;
}

const char *lithosd_names_text(const struct lithosd_names *names, uint64_t hash)
{
    return names->room ? name_slot(names, hash)->text : NULL;
}

void lithosd_names_finish(struct lithosd_names *names)
{
    for (uint32_t i = 0; i < names->room; i++)
        free(names->name[i].text);
    free(names->name);
    *names = (struct lithosd_names){0};
}

/* ---- handles ---- */

static struct lithosd_handle *handle_slot(const struct lithosd_handles *handles, uint64_t handle)
{
    uint32_t i = (uint32_t)mix(handle) & (handles->room - 1);
    while (handles->handle[i].handle && handles->handle[i].handle != handle)
        i = (i + 1) & (handles->room - 1);
    return &handles->handle[i];
}

static int handles_grow(struct lithosd_handles *handles)
{
    struct lithosd_handles larger = {.count = handles->count, .room = handles->room ? handles->room * 2 : 64};
    larger.handle = calloc(larger.room, sizeof *larger.handle);
    if (!larger.handle)
        return -1;
    for (uint32_t i = 0; i < handles->room; i++)
        if (handles->handle[i].handle)
            *handle_slot(&larger, handles->handle[i].handle) = handles->handle[i];
    free(handles->handle);
    *handles = larger;
    return 0;
}

static struct lithosd_handle *handle_enter(struct lithosd_handles *handles, uint64_t handle)
{
    if (!handle)
        return NULL;
    if (handles->room && handle_slot(handles, handle)->handle)
        return handle_slot(handles, handle);
    if (handles->count == LITHOSD_NAMES_MAX)
        return NULL;
    if (2 * (handles->count + 1) > handles->room && handles_grow(handles) < 0)
        return NULL;
    struct lithosd_handle *h = handle_slot(handles, handle);
    h->handle = handle;
    handles->count++;
    return h;
}

void lithosd_names_piece(struct lithosd_names *names, struct lithosd_handles *handles,
                         const struct lithos_record *r)
{
    struct lithosd_handle *h = handle_enter(handles, r->function);
    uint32_t offset = r->name.offset, total = r->name.total;
    uint32_t len = LITHOS_MIN(total - offset, (uint32_t)sizeof r->name.text);
    if (!h)
        return;
    if (offset == 0) {
        free(h->text);
        h->text = malloc(LITHOSD_NAME_BYTES_MAX + 1);
        h->have = 0;
        h->total = (uint16_t)total;
    }
    if (!h->text || h->total != total || h->have != offset)
        return;
    for (uint32_t i = 0; i < len && offset + i < LITHOSD_NAME_BYTES_MAX;
         i++) { /* it goes to terminals and JSON */
        char c = r->name.text[i];
        h->text[offset + i] = (char)(c > ' ' && c <= '~' ? c : '_');
    }
    h->have = (uint16_t)(offset + len);
    if (h->have < h->total)
        return;
    size_t kept = LITHOS_MIN((size_t)total, (size_t)LITHOSD_NAME_BYTES_MAX);
    h->text[kept] = '\0';
    h->hash = hash_text(h->text, kept);
    enter(names, h->hash, h->text);
    free(h->text);
    h->text = NULL;
}

uint64_t lithosd_names_function(const struct lithosd_handles *handles, uint64_t handle)
{
    const struct lithosd_handle *h = handles->room ? handle_slot(handles, handle) : NULL;
    return h && h->handle == handle && h->hash ? h->hash : mix(handle);
}

void lithosd_handles_finish(struct lithosd_handles *handles)
{
    for (uint32_t i = 0; i < handles->room; i++)
        free(handles->handle[i].text);
    free(handles->handle);
    *handles = (struct lithosd_handles){0};
}
