/* The status document of lithosd (docs/status.md), as far as the subcommands need it. Members that lack or
 * have another type read as empty: a newer daemon may say more, an older one less. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/message.h"

struct lithos_gpu_info {
    uint32_t index;
    uint8_t uuid[LITHOS_UUID_BYTES];
    char uuid_text[LITHOS_NAME_MAX];
    char name[LITHOS_NAME_MAX];
    unsigned tpcs, free; /* of the card, and held by nobody */
    char error[256];     /* why it cannot be used; "" when it can */
};

/* GPUs of the document, at most LITHOS_MAX_GPUS, in its order. Returns how many. */
unsigned lithos_document_gpus(const json_t *document, struct lithos_gpu_info gpus[LITHOS_MAX_GPUS]);

const char *lithos_json_string(const json_t *object, const char *key); /* "" when it lacks */
int64_t lithos_json_integer(const json_t *object, const char *key);    /* 0 when it lacks */
double lithos_json_number(const json_t *object, const char *key);      /* 0 when it lacks */
bool lithos_json_true(const json_t *object, const char *key);
