#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/tpcset.h"
#include "base/util.h"
#include "cli/doctor.h"
#include "cli/document.h"

#define PROBE_TIMEOUT_NS (60 * LITHOS_NSEC_PER_SEC)

/* The probe answers nearly everything about the driver, in a process whose end harms nobody. */
static void run_probe(struct lithos_doctor *d)
{
    char path[4200];
    struct lithos_child c = LITHOS_CHILD_NONE;
    int status;
    /* As the daemon runs it: all GPUs, and nothing of a tenant around it. */
    const char *const env[] = {"CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "LITHOS_TENANT", NULL};

    snprintf(path, sizeof(path), "%s/libexec/lithos/lithos-probe", d->base);
    const char *argv[] = {path, "--json", NULL};
    int r = lithos_child_run(&c, argv, env, PROBE_TIMEOUT_NS, &status);
    if (r < 0)
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "probe",
                             r == -ETIMEDOUT
                                 ? "the GPU does not answer: look at dmesg for Xid messages and at nvidia-smi"
                                 : "install LithOS again",
                             "%s: %s", path, r == -ETIMEDOUT ? "no answer within 60 s" : strerror(-r));
    else
        d->probe = json_loads(c.out.text ? c.out.text : "", 0, NULL);
    if (r == 0 && !json_is_object(d->probe)) {
        json_decref(d->probe);
        d->probe = NULL;
        if (WIFSIGNALED(status))
            lithos_doctor_report(d, LITHOS_FINDING_FAIL, "probe",
                                 "report this: a driver that lithos-probe cannot bear",
                                 "lithos-probe was ended by signal %d", WTERMSIG(status));
        else
            lithos_doctor_report(d, LITHOS_FINDING_FAIL, "probe", "run lithos-probe --json by hand",
                                 "lithos-probe gave no answer: %s", lithos_first_line(c.err.text));
    }
    lithos_child_end(&c, 0);
}

void lithos_doctor_driver(struct lithos_doctor *d)
{
    const char *override = getenv("LITHOS_LIBCUDA");

    run_probe(d);
    if (!d->probe)
        return;
    const char *error = lithos_json_string(d->probe, "error"),
               *version = lithos_json_string(d->probe, "driver");
    const char *path = lithos_json_string(d->probe, "path");
    d->virtual_gpu = lithos_json_true(d->probe, "virtual");
    if (*error) {
        lithos_doctor_report(
            d, LITHOS_FINDING_FAIL, "driver",
            override ? "correct LITHOS_LIBCUDA, or unset it so that the driver is looked for"
                     : "install the NVIDIA driver (nvidia-smi must work), or try LithOS on the virtual "
                       "GPU: lithos demo --virtual",
            "%s%s%s", error, override ? "; LITHOS_LIBCUDA=" : "", override ? override : "");
        return;
    }
    lithos_doctor_report(d, LITHOS_FINDING_OK, "driver", NULL, "%s%s%s%s%s%s", version,
                         d->virtual_gpu ? ", virtual GPU" : "", *path ? " at " : "", path,
                         override && !*path ? " by LITHOS_LIBCUDA=" : "", override && !*path ? override : "");
}

static void check_node(struct lithos_doctor *d, const char *path, unsigned *bad)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0) {
        close(fd);
        return;
    }
    (*bad)++;
    lithos_doctor_report(d, LITHOS_FINDING_FAIL, "device nodes",
                         errno == EACCES
                             ? "join the group that owns it, or chmod a+rw it (udev rule)"
                             : "load the module: modprobe nvidia nvidia-uvm; nvidia-modprobe -u -c=0",
                         "%s cannot be opened: %s", path, strerror(errno));
}

void lithos_doctor_device_nodes(struct lithos_doctor *d)
{
    unsigned bad = 0;
    glob_t g;

    if (d->virtual_gpu) {
        lithos_doctor_report(d, LITHOS_FINDING_OK, "device nodes", NULL, "none needed by the virtual GPU");
        return;
    }
    if (glob("/dev/nvidia[0-9]*", 0, NULL, &g) != 0) {
        lithos_doctor_report(
            d, LITHOS_FINDING_FAIL, "device nodes",
            "load the kernel module (modprobe nvidia); in a container start it with its GPUs (--gpus all)",
            "there is no /dev/nvidia0: no GPU, or none for this container");
        return;
    }
    check_node(d, "/dev/nvidiactl", &bad);
    check_node(d, "/dev/nvidia-uvm", &bad);
    for (size_t i = 0; i < g.gl_pathc; i++)
        check_node(d, g.gl_pathv[i], &bad);
    if (!bad)
        lithos_doctor_report(d, LITHOS_FINDING_OK, "device nodes", NULL,
                             "nvidiactl, nvidia-uvm and %zu GPUs can be opened", g.gl_pathc);
    globfree(&g);
}

static void report_hook(struct lithos_doctor *d, const json_t *gpu, const char *what)
{
    const char *qmd = lithos_json_string(gpu, "qmd"), *why = lithos_json_string(gpu, "hook_why");

    if (lithos_json_true(gpu, "hook"))
        lithos_doctor_report(
            d, LITHOS_FINDING_OK, what, NULL,
            "queue descriptors %s are seen and masked: tenants are held to TPCs of their own",
            *qmd ? qmd : "(version not told)");
    else
        lithos_doctor_report(d, LITHOS_FINDING_WARN, what,
                             "nothing need be done: quotas are held as numbers of SMs by MPS (coarse)",
                             "launches cannot be confined to TPCs: %s",
                             *why ? why : "the probe does not say why");
}

static void report_topology(struct lithos_doctor *d, const json_t *gpu, const char *what)
{
    const json_t *topology = json_object_get(gpu, "topology");
    const char *valid = lithos_json_string(topology, "valid");
    struct lithos_tpcset set;

    if (!lithos_json_true(gpu, "hook"))
        return; /* not measured, and of no use */
    if (!*valid || lithos_tpcset_parse(valid, &set) < 0) {
        lithos_doctor_report(d, LITHOS_FINDING_WARN, what,
                             "run `lithos-probe --no-cache' when the GPU is idle",
                             "which TPCs it has is not known");
        return;
    }
    lithos_doctor_report(d, LITHOS_FINDING_OK, what, NULL, "%u TPCs at bits %s, %s",
                         lithos_tpcset_count(&set), valid,
                         lithos_json_true(gpu, "cached") ? "from the cache" : "measured just now");
}

static void report_atoms(struct lithos_doctor *d, const json_t *gpu, const char *what)
{
    const char *why = lithos_json_string(gpu, "atoms_why");

    if (!lithos_json_true(gpu, "hook"))
        return; /* said already that there is no hook */
    if (lithos_json_true(gpu, "atoms"))
        lithos_doctor_report(
            d, LITHOS_FINDING_OK, what, NULL,
            "kernels can be cut into atoms: each block ran once in the self-test, a block passed over "
            "costs %d ps",
            (int)lithos_json_integer(gpu, "exit_ps"));
    else
        lithos_doctor_report(
            d, LITHOS_FINDING_WARN, what,
            "nothing need be done: kernels are left whole, and long ones keep others waiting",
            "kernels cannot be cut into atoms: %s", *why ? why : "the probe does not say why");
}

void lithos_doctor_gpus(struct lithos_doctor *d)
{
    const json_t *gpus = json_object_get(d->probe, "gpus"), *gpu;
    size_t i;

    if (!d->probe || *lithos_json_string(d->probe, "error"))
        return;
    if (json_array_size(gpus) == 0) {
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "GPUs", "nvidia-smi -L should list them",
                             "the driver shows none");
        return;
    }
    json_array_foreach((json_t *)gpus, i, gpu)
    {
        char what[32];
        const json_t *cc = json_object_get(gpu, "cc");
        snprintf(what, sizeof(what), "GPU %d", (int)lithos_json_integer(gpu, "index"));
        if (*lithos_json_string(gpu, "error")) {
            lithos_doctor_report(d, LITHOS_FINDING_FAIL, what, "see nvidia-smi and dmesg", "%s: %s",
                                 lithos_json_string(gpu, "name"), lithos_json_string(gpu, "error"));
            continue;
        }
        lithos_doctor_report(d, LITHOS_FINDING_OK, what, NULL, "%s, compute capability %d.%d, %d SMs, %s",
                             lithos_json_string(gpu, "name"), (int)json_integer_value(json_array_get(cc, 0)),
                             (int)json_integer_value(json_array_get(cc, 1)),
                             (int)lithos_json_integer(gpu, "sm_count"), lithos_json_string(gpu, "uuid"));
        report_hook(d, gpu, what);
        report_topology(d, gpu, what);
        report_atoms(d, gpu, what);
    }
}

static int cache_dir(char *buf, size_t size)
{
    const char *dir = getenv("LITHOS_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;

    if (dir && *dir)
        n = snprintf(buf, size, "%s", dir);
    else if (geteuid() == 0)
        n = snprintf(buf, size, "/var/cache/lithos");
    else if (xdg && *xdg)
        n = snprintf(buf, size, "%s/lithos", xdg);
    else
        n = snprintf(buf, size, "%s/.cache/lithos", home ? home : "");
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

void lithos_doctor_cache(struct lithos_doctor *d)
{
    static const char mend[] =
        "set LITHOS_CACHE_DIR to a folder you may write; without it every start measures anew";
    char dir[3072], file[3200];
    int r = cache_dir(dir, sizeof(dir));

    if (r == 0)
        r = lithos_mkdir_p(dir, 0755);
    if (r == 0) {
        /* Write for real: a full or read-only disk does not show in permission bits. */
        snprintf(file, sizeof(file), "%s/.doctor-%d", dir, (int)getpid());
        r = lithos_write_file_atomic(file, file, strlen(file), 0600);
        unlink(file);
    }
    if (r < 0)
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "cache", mend, "%s cannot be written: %s", dir,
                             strerror(-r));
    else
        lithos_doctor_report(d, LITHOS_FINDING_OK, "cache", NULL, "%s can be written", dir);
}
