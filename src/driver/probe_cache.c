/* Probed topologies kept on disk: a probe takes tens of milliseconds and the card's attention, and a card's TPCs do not
 * change. The key is the card and the driver, as another driver may number the bits anew. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "driver/probe.h"

#define CACHE_FORMAT 1
/* Counts up when the test asks for more, or the prelude changes: what was found out before is asked again. */
#define ATOMS_TEST 2
#define CACHE_BYTES_MAX (64u * 1024)

int lithos_probe_cache_dir(char *buf, size_t size)
{
    const char *named = getenv("LITHOS_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (named && *named)
        n = snprintf(buf, size, "%s", named);
    else if (geteuid() == 0)
        n = snprintf(buf, size, "/var/cache/lithos");
    else if (xdg && *xdg)
        n = snprintf(buf, size, "%s/lithos", xdg);
    else if (home && *home)
        n = snprintf(buf, size, "%s/.cache/lithos", home);
    else
        return -ENOENT;
    return n > 0 && (size_t)n < size ? 0 : -ENOENT;
}

static int cache_path(const char *dir, const struct lithos_probe *p, const struct lithos_probe_gpu *gpu,
                      char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s/topology-%s-%s.json", dir, gpu->uuid_text, p->driver);
    return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A member of json that must be this text / this number. */
static bool text_is(const json_t *json, const char *key, const char *text)
{
    const char *s = json_string_value(json_object_get(json, key));
    return s && !strcmp(s, text);
}

static bool number_is(const json_t *json, const char *key, long long number)
{
    const json_t *v = json_object_get(json, key);
    return json_is_integer(v) && json_integer_value(v) == number;
}

static int read_number(const json_t *json, const char *key, uint32_t *ret)
{
    const json_t *v = json_object_get(json, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1000000)
        return -EBADMSG;
    *ret = (uint32_t)json_integer_value(v);
    return 0;
}

static int read_topology(const json_t *json, const struct lithos_probe_gpu *gpu, struct lithos_topology *ret)
{
    struct lithos_topology t = {.reserved = 0};
    const char *valid = json_string_value(json_object_get(json, "valid"));
    if (!valid || lithos_tpcset_parse(valid, &t.valid) < 0 ||
        read_number(json, "sms_per_tpc", &t.sms_per_tpc) < 0 ||
        read_number(json, "gpc_stride", &t.gpc_stride) < 0 ||
        read_number(json, "gpc_count", &t.gpc_count) < 0 || lithos_topology_validate(&t) < 0 ||
        lithos_tpcset_count(&t.valid) * t.sms_per_tpc != (unsigned)gpu->sm_count)
        return -EBADMSG;
    *ret = t;
    return 0;
}

static int read_entry(const json_t *json, const struct lithos_probe *p, struct lithos_probe_gpu *gpu)
{
    struct lithos_topology topology;
    const char *qmd = json_string_value(json_object_get(json, "qmd"));
    if (!number_is(json, "format", CACHE_FORMAT) || !text_is(json, "uuid", gpu->uuid_text) ||
        !text_is(json, "driver", p->driver) || !text_is(json, "name", gpu->name) ||
        !number_is(json, "cc_major", gpu->cc_major) || !number_is(json, "cc_minor", gpu->cc_minor) ||
        !number_is(json, "sm_count", gpu->sm_count) || !qmd || strlen(qmd) >= sizeof gpu->qmd || !*qmd ||
        read_topology(json_object_get(json, "topology"), gpu, &topology) < 0)
        return -EBADMSG;
    strcpy(gpu->qmd, qmd); /* length checked above */
    gpu->topology = topology;
    gpu->have_topology = true;
    gpu->cached = true;
    const json_t *stamps =
        json_object_get(json, "stamps"); /* not in files of before: then it is asked anew */
    const char *why = json_string_value(json_object_get(json, "stamps_why"));
    gpu->have_stamps = json_is_boolean(stamps) && why && strlen(why) < sizeof gpu->stamps_why;
    if (gpu->have_stamps) {
        gpu->stamps = json_is_true(stamps);
        strcpy(gpu->stamps_why, why); /* length checked above */
    }
    const json_t *atoms = json_object_get(json, "atoms"); /* likewise */
    uint32_t exit_ps;
    why = json_string_value(json_object_get(json, "atoms_why"));
    gpu->have_atoms = json_is_boolean(atoms) && why && strlen(why) < sizeof gpu->atoms_why &&
                      number_is(json, "atoms_test", ATOMS_TEST) &&
                      read_number(json, "exit_ps", &exit_ps) == 0;
    if (gpu->have_atoms) {
        gpu->atoms = json_is_true(atoms);
        gpu->exit_ps = exit_ps;
        strcpy(gpu->atoms_why, why); /* length checked above */
    } else if (number_is(json, "atoms_test", ATOMS_TEST) &&
               read_number(json, "atoms_tries", &gpu->atoms_tries) < 0) {
        gpu->atoms_tries = 0;
    }
    return 0;
}

int lithos_probe_cache_load(const char *dir, const struct lithos_probe *p, struct lithos_probe_gpu *gpu)
{
    char path[PATH_MAX], *text;
    size_t bytes;
    int r = cache_path(dir, p, gpu, path);
    if (r == 0)
        r = lithos_read_file(path, CACHE_BYTES_MAX, &text, &bytes);
    if (r < 0) {
        if (r != -ENOENT)
            lithos_warning("cannot read %s (%s): probing %s again", path, strerror(-r), gpu->uuid_text);
        return r == -ENOENT ? r : -EBADMSG;
    }
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    r = json ? read_entry(json, p, gpu) : -EBADMSG;
    json_decref(json);
    if (r < 0)
        lithos_warning("%s is damaged or about another card: probing %s again", path, gpu->uuid_text);
    return r;
}

int lithos_probe_cache_store(const char *dir, const struct lithos_probe *p,
                             const struct lithos_probe_gpu *gpu)
{
    char path[PATH_MAX], valid[LITHOS_TPCSET_TEXT_MAX];
    int r = cache_path(dir, p, gpu, path);
    if (r == 0)
        r = lithos_mkdir_p(dir, 0755);
    if (r < 0)
        return r;
    json_t *json = json_pack("{si ss ss ss si si si ss s{ss si si si}}", "format", CACHE_FORMAT, "uuid",
                             gpu->uuid_text, "driver", p->driver, "name", gpu->name, "cc_major",
                             gpu->cc_major, "cc_minor", gpu->cc_minor, "sm_count", gpu->sm_count, "qmd",
                             gpu->qmd, "topology", "valid", lithos_tpcset_format(&gpu->topology.valid, valid),
                             "sms_per_tpc", (int)gpu->topology.sms_per_tpc, "gpc_stride",
                             (int)gpu->topology.gpc_stride, "gpc_count", (int)gpu->topology.gpc_count);
    if (json && gpu->have_stamps) {
        json_object_set_new(json, "stamps", json_boolean(gpu->stamps));
        json_object_set_new(json, "stamps_why", json_string(gpu->stamps_why));
    }
    if (json && !gpu->have_atoms && gpu->atoms_tries) {
        json_object_set_new(json, "atoms_test", json_integer(ATOMS_TEST));
        json_object_set_new(json, "atoms_tries", json_integer(gpu->atoms_tries));
    }
    if (json && gpu->have_atoms) {
        json_object_set_new(json, "atoms_test", json_integer(ATOMS_TEST));
        json_object_set_new(json, "atoms", json_boolean(gpu->atoms));
        json_object_set_new(json, "atoms_why", json_string(gpu->atoms_why));
        json_object_set_new(json, "exit_ps", json_integer(gpu->exit_ps));
    }
    char *text = json ? json_dumps(json, JSON_INDENT(4)) : NULL;
    json_decref(json);
    if (!text)
        return -ENOMEM;
    r = lithos_write_file_atomic(path, text, strlen(text), 0644);
    free(text);
    return r;
}
