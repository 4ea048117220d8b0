/* A daemon of the demo's own, so that it disturbs nobody's and leaves nothing behind. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/demo.h"
#include "cli/document.h"
#include "cli/gpus.h"

#define PATIENCE_NS (90 * LITHOS_NSEC_PER_SEC)

static int make_folder(struct lithos_demo *d)
{
    const char *tmp = getenv("TMPDIR");

    /* A Unix socket's path has 108 bytes: a deep TMPDIR is of no use. */
    if (!tmp || !*tmp || strlen(tmp) > 60)
        tmp = "/tmp";
    snprintf(d->dir, sizeof(d->dir), "%s/lithos-demo-XXXXXX", tmp);
    if (!mkdtemp(d->dir)) {
        int r = -errno;
        lithos_error("demo: cannot make a folder in %s: %s; set TMPDIR", tmp, strerror(-r));
        d->dir[0] = 0;
        return r;
    }
    snprintf(d->socket, sizeof(d->socket), "%s/lithosd.sock", d->dir);
    return 0;
}

static int start_daemon(struct lithos_demo *d)
{
    char path[3200], state[320];
    const char *const argv[] = {path, "--socket", d->socket, "--state-dir", state, "--mps=on", NULL};
    const char *const env[] = {"LITHOS_TENANT",        "LITHOS_GRANT",  "LITHOS_HOOK", "LD_PRELOAD",
                               "CUDA_VISIBLE_DEVICES", "LITHOS_SOCKET", NULL};

    snprintf(path, sizeof(path), "%s/bin/lithosd", d->base);
    snprintf(state, sizeof(state), "%s/state", d->dir);
    int r = lithos_child_start(&d->daemon, argv, env);
    if (r < 0)
        lithos_error("demo: cannot start %s: %s", path, strerror(-r));
    return r;
}

/* The status document once the daemon answers. NULL: not yet. */
static json_t *try_status(struct lithos_demo *d)
{
    json_t *document = NULL;
    int sock;

    if (lithos_socket_connect(d->socket, LITHOS_NSEC_PER_SEC, &sock) < 0)
        return NULL;
    if (lithos_client_document(sock, &document) < 0)
        document = NULL;
    close(sock);
    return document;
}

/* Which GPU is played on: the first that CUDA_VISIBLE_DEVICES shows. */
static int take_gpu(struct lithos_demo *d, const json_t *document)
{
    struct lithos_gpu_info gpus[LITHOS_MAX_GPUS];
    struct lithos_gpu_choice visible = {1, {0}};
    const char *cvd = getenv("CUDA_VISIBLE_DEVICES");
    unsigned n = lithos_document_gpus(document, gpus);
    char why[512];

    if (n == 0) {
        const char *error = lithos_json_string(document, "error");
        lithos_error("demo: lithosd sees no GPU%s%s: `lithos doctor' says more", *error ? ": " : "", error);
        return -ENODEV;
    }
    if (cvd && lithos_gpus_visible(cvd, gpus, n, &visible, why, sizeof(why)) < 0) {
        lithos_error("demo: %s", why);
        return -ENODEV;
    }
    const struct lithos_gpu_info *g = &gpus[visible.gpus[0]];
    snprintf(d->gpu, sizeof(d->gpu), "%s", g->uuid_text);
    snprintf(d->gpu_name, sizeof(d->gpu_name), "%s", g->name);
    snprintf(d->driver, sizeof(d->driver), "%s", lithos_json_string(document, "driver"));
    return 0;
}

/* True once the daemon knows whether there is MPS. */
static bool take_mps(struct lithos_demo *d, const json_t *document)
{
    const json_t *mps = json_object_get(document, "mps");
    const char *state = lithos_json_string(mps, "state");

    if (!strcmp(state, "starting"))
        return false;
    d->mps_is_ours = !strcmp(state, "ours");
    if (d->mps_is_ours || !strcmp(state, "existing"))
        snprintf(d->mps_dir, sizeof(d->mps_dir), "%s", lithos_json_string(mps, "pipe_dir"));
    snprintf(d->mps_why, sizeof(d->mps_why), "%s", lithos_json_string(mps, "why"));
    return true;
}

int lithos_demo_stage_open(struct lithos_demo *d)
{
    uint64_t deadline_ns = lithos_now_ns() + PATIENCE_NS;
    int r = make_folder(d);

    if (r == 0)
        r = start_daemon(d);
    while (r == 0) {
        json_t *document = try_status(d);
        bool settled = document && take_mps(d, document);
        if (settled)
            r = take_gpu(d, document);
        json_decref(document);
        if (settled)
            return r;
        r = lithos_child_wait_for(&d->daemon, "\1never said\1", lithos_now_ns() + 50 * LITHOS_NSEC_PER_MSEC);
        if (r == -ETIMEDOUT)
            r = lithos_now_ns() < deadline_ns ? 0 : -ETIMEDOUT;
    }
    if (r == -ECHILD || r == -ETIMEDOUT)
        lithos_error("demo: lithosd %s; it said: %s", r == -ECHILD ? "ended" : "does not get ready",
                     d->daemon.err.text ? d->daemon.err.text : "nothing");
    return r;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    remove(path);
    return 0;
}

/* Should the daemon have been killed, its MPS would stay: ask that one to end. */
static void end_mps(struct lithos_demo *d)
{
    char control[320], pipe[320];
    const char *const argv[] = {"nvidia-cuda-mps-control", NULL};
    const char *const env[] = {pipe, NULL};
    struct lithos_child c = LITHOS_CHILD_NONE;
    int status;

    snprintf(control, sizeof(control), "%s/control", d->mps_dir);
    if (!d->mps_is_ours || access(control, F_OK) < 0)
        return;
    snprintf(pipe, sizeof(pipe), "CUDA_MPS_PIPE_DIRECTORY=%s", d->mps_dir);
    if (lithos_child_start(&c, argv, env) == 0) {
        lithos_child_tell(&c, "quit\n");
        close(c.in);
        c.in = -1;
        lithos_child_wait(&c, lithos_now_ns() + 5 * LITHOS_NSEC_PER_SEC, &status);
    }
    lithos_child_end(&c, 0);
}

void lithos_demo_stage_close(struct lithos_demo *d)
{
    lithos_child_end(&d->daemon, 15000);
    end_mps(d);
    if (d->dir[0])
        nftw(d->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    d->dir[0] = 0;
}
