#include "driver/loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "driver/ldcache.h"

#define DRIVER_NAME "libcuda.so.1"
/* Exported by every build of liblithos and by no driver (src/tenant): tells a copy of ourselves from the
 * driver. */
#define MARKER_SYMBOL "lithos_library_marker"

static const char *const usual_places[] = {
    "/usr/lib/x86_64-linux-gnu/" DRIVER_NAME,
    "/usr/lib64/" DRIVER_NAME,
    "/usr/lib64/nvidia/" DRIVER_NAME,
    "/usr/local/nvidia/lib64/" DRIVER_NAME,
    "/usr/lib/wsl/lib/" DRIVER_NAME,
    "/usr/lib/nvidia/" DRIVER_NAME,
    "/run/opengl-driver/lib/" DRIVER_NAME,
    "/usr/local/cuda/compat/" DRIVER_NAME,
    "/usr/lib/" DRIVER_NAME,
};

static struct {
    pthread_mutex_t lock;
    atomic_bool settled; /* the search is over: the rest does not change any more */
    bool opening;        /* under lock: for the driver's constructors calling back in */
    bool prefer_loaded;
    atomic_bool loud;
    void *handle;
    char path[LITHOS_DRIVER_PATH_MAX];
    char version[64];
    char why[512];
} driver = {.lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};

/* Own file on disk, so that a path which leads back here is known before it is opened. */
static bool is_self(const char *path)
{
    Dl_info self;
    struct stat ours, theirs;
    if (!dladdr(&driver, &self) || !self.dli_fname || stat(self.dli_fname, &ours) < 0 ||
        stat(path, &theirs) < 0)
        return false;
    return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static void note_why(const char *path, const char *what)
{
    if (!driver.why[0])
        snprintf(driver.why, sizeof driver.why, "%.200s: %.250s", path, what);
}

/* Open one candidate; true when it is a CUDA driver other than ourselves. */
static bool try_open(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return false;
    if (is_self(path)) {
        note_why(path, "is LithOS itself, not a driver");
        return false;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *error = dlerror();
        note_why(path, error ? error : "cannot be loaded");
        return false;
    }
    if (dlsym(handle, MARKER_SYMBOL) || !dlsym(handle, "cuInit")) {
        note_why(path, dlsym(handle, MARKER_SYMBOL) ? "is a copy of LithOS, not a driver" : "has no cuInit");
        dlclose(handle);
        return false;
    }
    driver.handle = handle;
    if (!realpath(path, driver.path))
        snprintf(driver.path, sizeof driver.path, "%s", path);
    const char *base = strrchr(driver.path, '/');
    const char *suffix = strstr(base ? base : driver.path, "libcuda.so.");
    snprintf(driver.version, sizeof driver.version, "%.63s",
             suffix ? suffix + strlen("libcuda.so.") : "unknown");
    driver.why[0] = 0;
    return true;
}

static bool try_cache(void)
{
    char *cache, path[LITHOS_DRIVER_PATH_MAX];
    size_t bytes;
    bool found = false;
    if (lithos_read_file("/etc/ld.so.cache", LITHOS_LDCACHE_MAX_BYTES, &cache, &bytes) < 0)
        return false;
    for (unsigned n = 0; !found && n < 16; n++) {
        if (lithos_ldcache_find(cache, bytes, DRIVER_NAME, n, path, sizeof path) < 0)
            break;
        found = try_open(path);
    }
    free(cache);
    return found;
}

static int visit_loaded(struct dl_phdr_info *info, size_t size, void *ret_path)
{
    (void)size;
    const char *base = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    if (!base || strncmp(base + 1, "libcuda.so", strlen("libcuda.so")) != 0 || is_self(info->dlpi_name))
        return 0;
    snprintf(ret_path, LITHOS_DRIVER_PATH_MAX, "%s", info->dlpi_name);
    return 1;
}

static bool try_loaded(void)
{
    char path[LITHOS_DRIVER_PATH_MAX];
    return dl_iterate_phdr(visit_loaded, path) == 1 && try_open(path);
}

static void search(void)
{
    if (driver.prefer_loaded && try_loaded())
        return;
    const char *env = getenv("LITHOS_LIBCUDA");
    if (env && *env) {
        if (!try_open(env))
            note_why(env, "named by LITHOS_LIBCUDA: no such file");
        return; /* what was asked for by name is not replaced by a guess */
    }
    if (try_cache())
        return;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(usual_places); i++)
        if (try_open(usual_places[i]))
            return;
    note_why(DRIVER_NAME, "not in /etc/ld.so.cache nor in the usual places");
}

/* A fork while another thread opens the driver must not leave the child with a lock that nobody holds. */
static void after_fork_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    memcpy(&driver.lock, &fresh, sizeof fresh);
    driver.opening = false;
}

static void open_driver(void)
{
    pthread_mutex_lock(&driver.lock);
    if (!atomic_load(&driver.settled) && !driver.opening) {
        driver.opening = true;
        pthread_atfork(NULL, NULL, after_fork_child);
        search();
        driver.opening = false;
        atomic_store(&driver.settled, true);
        if (!driver.handle)
            lithos_log(
                atomic_load(&driver.loud) ? LITHOS_LOG_WARNING : LITHOS_LOG_INFO,
                "no CUDA driver found (%s): every CUDA call returns CUDA_ERROR_NO_DEVICE. Install the NVIDIA "
                "driver, or name its libcuda.so.1 in LITHOS_LIBCUDA",
                driver.why);
        else
            lithos_debug("CUDA driver %s at %s", driver.version, driver.path);
    }
    pthread_mutex_unlock(&driver.lock);
}

void *lithos_driver_handle(void)
{
    if (!atomic_load_explicit(&driver.settled, memory_order_acquire))
        open_driver();
    return atomic_load_explicit(&driver.settled, memory_order_acquire) ? driver.handle : NULL;
}

void *lithos_driver_symbol(const char *name)
{
    void *handle = lithos_driver_handle();
    return handle ? dlsym(handle, name) : NULL;
}

void lithos_driver_prefer_loaded(void)
{
    driver.prefer_loaded = true;
}

const char *lithos_driver_path(void)
{
    lithos_driver_handle();
    return driver.path;
}

const char *lithos_driver_version(void)
{
    lithos_driver_handle();
    return driver.version;
}

const char *lithos_driver_why(void)
{
    return lithos_driver_handle() ? "" : driver.why;
}

void lithos_driver_set_loud(bool loud)
{
    atomic_store(&driver.loud, loud);
}
