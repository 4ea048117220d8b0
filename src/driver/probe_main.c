/* lithos-probe: says in JSON what GPUs there are and whether launches on them can be masked. A process of its own, so
 * that a driver or card that hangs takes nothing along; it ends itself when that happens. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/loader.h"
#include "driver/probe.h"

#define EXIT_USAGE 2
#define EXIT_HUNG 3
/* Of the whole run: contexts on eight GPUs take seconds, the census 30 ms each. */
#define PROBE_LIMIT_S 60
#define CANARY_LIMIT_S 10
/* Of the atoms' self-test on one GPU: 0.1 s on a card, a turn for each of some fifty waits beside a program outside of MPS. One that
 * does not end may have met a busy card, or hang: it is tried so often. */
#define ATOMS_LIMIT_S 30
#define ATOMS_TRIES 3

struct options {
    bool json, no_cache, canary;
    const char *cache_dir, *gpu;
};

/* ---- the watchdog: what it prints is ready before it may be needed ---- */

static char first_words[512];
static const char *volatile last_words = first_words;

static void on_alarm(int signal)
{
    (void)signal;
    ssize_t n = write(STDOUT_FILENO, last_words, strlen(last_words));
    (void)n;
    _exit(EXIT_HUNG);
}

static void set_watchdog(const struct options *o)
{
    unsigned seconds = o->canary ? CANARY_LIMIT_S : PROBE_LIMIT_S;
    snprintf(first_words, sizeof first_words,
             o->json && !o->canary ? "{\"driver\": null, \"virtual\": false, \"error\": \"the driver or a "
                                     "GPU did not answer within %u s: is "
                                     "another program hanging it? Look at nvidia-smi\", \"gpus\": []}\n"
                                   : "lithos-probe: the driver or a GPU did not answer within %u s\n",
             seconds);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
}

/* ---- probing ---- */

static bool is_off(const char *variable)
{
    const char *env = getenv(variable);
    return env && !strcmp(env, "off");
}

static void store(const char *dir, const struct lithos_probe *p, const struct lithos_probe_gpu *gpu)
{
    int r = dir ? lithos_probe_cache_store(dir, p, gpu) : 0;
    if (r < 0)
        lithos_warning(
            "cannot keep what was probed of %s in %s (%s): the answer holds, the next start probes again",
            gpu->uuid_text, dir, strerror(-r));
}

/* True: something new was found out. */
static bool probe_stamps(struct lithos_probe_gpu *gpu)
{
    if (is_off("LITHOS_STAMPS")) {
        gpu->stamps = false;
        snprintf(gpu->stamps_why, sizeof gpu->stamps_why, "LITHOS_STAMPS=off");
        gpu->have_stamps = false; /* nothing to keep */
        return false;
    }
    if (gpu->have_stamps)
        return false;
    if (lithos_probe_stamps(gpu) < 0) /* what is known of the card holds all the same */
        lithos_warning("completion stamps on %s: %s", gpu->uuid_text, gpu->error), gpu->error[0] = 0;
    return gpu->have_stamps;
}

static char *describe_all(const struct options *o, const struct lithos_probe *p);

/* Should it hang, then what is known without it is said; that it was tried is kept before, so that nobody hangs for it for ever. */
static bool probe_atoms(const struct options *o, const char *dir, struct lithos_probe *p,
                        struct lithos_probe_gpu *gpu)
{
    if (is_off("LITHOS_ATOMS")) {
        gpu->atoms = gpu->have_atoms = false;
        snprintf(gpu->atoms_why, sizeof gpu->atoms_why, "LITHOS_ATOMS=off");
        return false;
    }
    if (gpu->have_atoms)
        return false;
    gpu->atoms = false;
    bool again = gpu->atoms_tries < ATOMS_TRIES;
    snprintf(gpu->atoms_why, sizeof gpu->atoms_why,
             again ? "the self-test did not end within %d s: it is tried again at the next start"
                   : "the self-test did not end within %d s, and was tried often enough",
             ATOMS_LIMIT_S);
    if (!again) {
        gpu->have_atoms = true;
        return true;
    }
    gpu->atoms_tries++;
    store(dir, p, gpu);
    char *text = o->json ? describe_all(o, p) : NULL;
    if (text)
        last_words = text;
    alarm(ATOMS_LIMIT_S);
    if (lithos_probe_atoms(gpu) < 0)
        lithos_warning("atoms on %s: %s", gpu->uuid_text, gpu->error), gpu->error[0] = 0;
    alarm(PROBE_LIMIT_S);
    last_words = first_words;
    free(text);
    return gpu->have_atoms;
}

static void probe_gpu(const struct options *o, const char *dir, struct lithos_probe *p,
                      struct lithos_probe_gpu *gpu)
{
    if (gpu->error[0] || !gpu->hook)
        return;
    bool cached = dir && lithos_probe_cache_load(dir, p, gpu) == 0;
    if (!cached && (lithos_probe_topology(p, gpu) < 0 || !gpu->have_topology))
        return;
    bool news = probe_stamps(gpu);
    if (news || !cached)
        store(dir, p, gpu);
    if (probe_atoms(o, dir, p, gpu))
        store(dir, p, gpu);
}

static bool is_named(const struct options *o, const struct lithos_probe_gpu *gpu)
{
    return !o->gpu || !strcasecmp(o->gpu, gpu->uuid_text) ||
           !strcasecmp(o->gpu, gpu->uuid_text + strlen("GPU-"));
}

/* ---- output ---- */

static json_t *text_or_null(const char *text)
{
    json_t *s = text[0] ? json_string(text) : NULL;
    return s ? s : json_null(); /* also for a name that is not UTF-8 */
}

static json_t *describe(const struct lithos_probe_gpu *gpu)
{
    char valid[LITHOS_TPCSET_TEXT_MAX];
    const struct lithos_topology *t = &gpu->topology;
    json_t *topology =
        gpu->have_topology
            ? json_pack("{ss si si si}", "valid", lithos_tpcset_format(&t->valid, valid), "sms_per_tpc",
                        (int)t->sms_per_tpc, "gpc_stride", (int)t->gpc_stride, "gpc_count", (int)t->gpc_count)
            : json_null();
    return json_pack("{si ss so s[ii] si so sb ss so sb ss sb ss si sb so}", "index", gpu->index, "uuid",
                     gpu->uuid_text, "name", text_or_null(gpu->name), "cc", gpu->cc_major, gpu->cc_minor,
                     "sm_count", gpu->sm_count, "qmd", text_or_null(gpu->qmd), "hook", gpu->hook, "hook_why",
                     gpu->why, "topology", topology, "stamps", gpu->stamps, "stamps_why", gpu->stamps_why,
                     "atoms", gpu->atoms, "atoms_why", gpu->atoms_why, "exit_ps", (int)gpu->exit_ps, "cached",
                     gpu->cached, "error", text_or_null(gpu->error));
}

/* One line; free it. NULL without memory. */
static char *describe_all(const struct options *o, const struct lithos_probe *p)
{
    json_t *gpus = json_array();
    for (int i = 0; i < p->gpu_count; i++)
        if (is_named(o, &p->gpus[i]))
            json_array_append_new(gpus, describe(&p->gpus[i]));
    json_t *all = json_pack("{so so sb so so}", "driver", text_or_null(p->driver), "path",
                            text_or_null(lithos_driver_path()), "virtual", p->is_virtual, "error",
                            text_or_null(p->error), "gpus", gpus);
    char *text = all ? json_dumps(all, 0) : NULL;
    json_decref(all);
    return text;
}

static int print_json(const struct options *o, const struct lithos_probe *p)
{
    char *text = describe_all(o, p);
    int r = text ? puts(text) : EOF;
    free(text);
    return r != EOF && fflush(stdout) == 0 && !p->error[0] ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int print_text(const struct options *o, const struct lithos_probe *p)
{
    if (p->error[0]) {
        lithos_error("%s", p->error);
        return EXIT_FAILURE;
    }
    printf("driver %s%s\n", p->driver, p->is_virtual ? " (virtual GPU)" : "");
    for (int i = 0; i < p->gpu_count; i++) {
        const struct lithos_probe_gpu *gpu = &p->gpus[i];
        char valid[LITHOS_TPCSET_TEXT_MAX];
        if (!is_named(o, gpu))
            continue;
        printf("GPU %d %s %s, compute capability %d.%d, %d SMs\n", gpu->index, gpu->uuid_text, gpu->name,
               gpu->cc_major, gpu->cc_minor, gpu->sm_count);
        if (gpu->error[0])
            printf("  error: %s\n", gpu->error);
        if (!gpu->hook)
            printf("  launches cannot be masked: %s\n", gpu->why);
        if (gpu->have_topology)
            printf("  queue descriptors %s, TPCs %s%s\n", gpu->qmd,
                   lithos_tpcset_format(&gpu->topology.valid, valid), gpu->cached ? " (from the cache)" : "");
        if (gpu->have_topology && !gpu->stamps)
            printf("  no completion stamps: %s\n", gpu->stamps_why);
        if (gpu->have_topology && gpu->atoms)
            printf("  kernels can be cut into atoms; a block that is not part of one costs %u ps%s\n",
                   gpu->exit_ps, gpu->exit_ps ? "" : " (not measured)");
        else if (gpu->have_topology)
            printf("  kernels cannot be cut into atoms: %s\n", gpu->atoms_why);
    }
    return EXIT_SUCCESS;
}

static int run_canary(const struct options *o, struct lithos_probe *p)
{
    int bad = 0, tried = 0;
    if (p->error[0]) {
        lithos_error("%s", p->error);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < p->gpu_count; i++) {
        struct lithos_probe_gpu *gpu = &p->gpus[i];
        if (!is_named(o, gpu))
            continue;
        tried++;
        if (gpu->error[0] || lithos_probe_canary(gpu) < 0) {
            lithos_error("%s", gpu->error);
            bad++;
        }
    }
    if (!tried)
        lithos_error("no GPU %s here", o->gpu);
    return bad || !tried ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- options ---- */

static void usage(FILE *to)
{
    fputs("usage: lithos-probe [--json] [--no-cache] [--cache-dir DIR] [--gpu UUID]\n"
          "       lithos-probe --canary [--gpu UUID]\n"
          "Lists the GPUs, whether launches on them can be masked, and which mask bits name a TPC.\n"
          "  --json           one JSON object on standard output\n"
          "  --no-cache       probe, and keep nothing\n"
          "  --cache-dir DIR  where probed topologies are kept\n"
          "  --gpu UUID       this GPU only\n"
          "  --canary         run one small kernel a GPU; success when all ended\n",
          to);
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'},
        {"no-cache", no_argument, NULL, 'n'},
        {"cache-dir", required_argument, NULL, 'c'},
        {"canary", no_argument, NULL, 'k'},
        {"gpu", required_argument, NULL, 'g'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'j':
            o->json = true;
            break;
        case 'n':
            o->no_cache = true;
            break;
        case 'c':
            o->cache_dir = optarg;
            break;
        case 'k':
            o->canary = true;
            break;
        case 'g':
            o->gpu = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(EXIT_SUCCESS);
        default:
            return -EINVAL;
        }
    }
    return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    static struct lithos_probe p; /* large */
    struct options o = {0};
    char dir[PATH_MAX];
    lithos_log_set_name("lithos-probe");
    if (parse(argc, argv, &o) < 0) {
        usage(stderr);
        return EXIT_USAGE;
    }
    set_watchdog(&o);
    lithos_probe_open(&p); /* what went wrong stands in p.error */
    if (o.canary)
        return run_canary(&o, &p);
    if (!o.cache_dir && lithos_probe_cache_dir(dir, sizeof dir) == 0)
        o.cache_dir = dir;
    for (int i = 0; i < p.gpu_count; i++)
        if (is_named(&o, &p.gpus[i]))
            probe_gpu(&o, o.no_cache ? NULL : o.cache_dir, &p, &p.gpus[i]);
    return o.json ? print_json(&o, &p) : print_text(&o, &p);
}
