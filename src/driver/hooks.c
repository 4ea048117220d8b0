/* Functions of the driver that LithOS puts itself before: initialization, launches, graphs. Each calls the
 * real one with what it was given and returns what that returns. */
#include "driver/hooks.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "driver/atoms.h"
#include "driver/client.h"
#include "driver/loader.h"
#include "driver/names.h"
#include "driver/narrow.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"
#include "driver/qmd_table.h"
#include "driver/together.h"
#include "driver/tools.h"

/* Called from exports.S alone, under the names that hooks.def gives. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define HIDDEN __attribute__((visibility("hidden")))

const struct lithos_hook_row lithos_hook_rows[LITHOS_HOOK_ID_MAX] = {
#define HOOK(name, base_name, since_version, thread, k) \
    {.export = LITHOS_EXPORT_##name,                    \
     .base = LITHOS_EXPORT_##base_name,                 \
     .since = since_version,                            \
     .per_thread = thread,                              \
     .kind = LITHOS_HOOK_KIND_##k},
#define MARK(name, base_name, since_version, thread, args, on) \
    HOOK(name, base_name, since_version, thread, MARK)
#define WAIT(name, base_name, since_version, thread, what) HOOK(name, base_name, since_version, thread, WAIT)
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT
};

bool lithos_hook_counts_calls LITHOS_LAUNCH_DATA;
_Atomic uint64_t lithos_hook_calls[LITHOS_HOOK_ID_MAX];

/* ---- starting ---- */

static struct {
    pthread_mutex_t lock;
    bool started;               /* under lock */
    _Atomic int inside_cu_init; /* threads in our cuInit: the driver's injection is then ours to ignore */
    atomic_bool injected;
    atomic_bool app_asked;
} start = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void after_fork_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&start.lock, &fresh, sizeof fresh);
    start.started = false;
    atomic_store(&start.inside_cu_init, 0);
    atomic_store(&start.injected, false);
    lithos_hook_forget();
}

static bool hook_switched_off(void)
{
    const char *env = getenv("LITHOS_HOOK");
    return env && !strcmp(env, "off");
}

static void report_calls(void)
{
    for (int i = 0; i < LITHOS_HOOK_ID_MAX; i++) {
        uint64_t calls = atomic_load_explicit(&lithos_hook_calls[i], memory_order_relaxed);
        if (calls)
            lithos_debug("%s: %llu calls", lithos_export_name((enum lithos_export)lithos_hook_rows[i].export),
                         (unsigned long long)calls);
    }
}

static void subscribe(void)
{
    if (hook_switched_off())
        return;
    if (lithos_tools_were_first())
        lithos_hook_step_aside(
            "a profiler or debugger in this program has subscribed to the driver first, which calls one "
            "subscriber alone; LithOS leaves it to the tool");
    else
        lithos_hook_subscribe();
    if (lithos_hook_get_state() == LITHOS_HOOK_FAILED)
        lithos_warning("the quota cannot be held launch by launch: %s. Use `lithos run --coarse`",
                       lithos_hook_why());
}

/* After the first successful cuInit of the process. Later callers wait till it is done, so that nobody
 * launches before the masks are in force; the client bounds it. */
static void start_once(void)
{
    pthread_mutex_lock(&start.lock);
    if (!start.started) {
        start.started = true;
        static atomic_flag registered = ATOMIC_FLAG_INIT;
        if (!atomic_flag_test_and_set(&registered)) {
            pthread_atfork(NULL, NULL, after_fork_child);
            lithos_hook_counts_calls = lithos_log_threshold() >= LITHOS_LOG_DEBUG;
            if (lithos_hook_counts_calls)
                atexit(report_calls);
        }
        if (!atomic_load(&start.injected)) { /* else all of it is under way already */
            int r = lithos_hook_scan_devices();
            if (r < 0)
                lithos_warning("the driver does not tell its GPUs (%s): launches are left as they are",
                               strerror(-r));
            subscribe();
            atomic_store(&lithos_hook_on, true);
            lithos_hook_client.started();
        }
    }
    pthread_mutex_unlock(&start.lock);
}

typedef CUresult (*init_fn)(unsigned int);

HIDDEN CUresult lithos_hook_cuInit(unsigned int flags)
{
    bool wanted = lithos_hook_client.wanted();
    lithos_driver_set_loud(wanted);
    atomic_fetch_add(&start.inside_cu_init, 1);
    CUresult result = LITHOS_REAL(init_fn, cuInit)(flags);
    atomic_fetch_sub(&start.inside_cu_init, 1);
    if (result == CUDA_SUCCESS && wanted) {
        start_once();
        LITHOS_HOOK_CALLED(cuInit);
    }
    return result;
}

int lithos_hook_injected(void)
{
    if (atomic_load(&start.inside_cu_init) || atomic_load(&lithos_hook_on) || !lithos_hook_client.wanted())
        return 1;
    /* The app holds the real driver by another way than us: what it launches escapes our functions but not
     * the QMD hook. Devices and masks follow as soon as the driver is up (the client's thread). */
    lithos_driver_set_loud(true);
    lithos_driver_prefer_loaded();
    if (!lithos_driver_handle())
        return 1;
    atomic_store(&start.injected, true);
    subscribe();
    atomic_store(&lithos_hook_on, true);
    lithos_hook_client.injected();
    return 1;
}

/* ---- the rest of PLAIN; cuGetProcAddress is in procaddr.c ---- */

/* For people who look into how a tool gets at the driver: LITHOS_LOG=debug. */
static void say_table(const CUuuid *uuid, const void *caller)
{
    Dl_info info;
    char hex[2 * sizeof *uuid + 1];
    for (size_t i = 0; i < sizeof *uuid; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned)((const unsigned char *)uuid)[i]);
    lithos_debug("export table %s is asked for by %s", hex,
                 dladdr(caller, &info) && info.dli_fname ? info.dli_fname : "code of no library");
}

HIDDEN CUresult lithos_hook_cuGetExportTable(const void **ret_table, const CUuuid *uuid)
{
    static const CUuuid qmd_table = LITHOS_QMD_TABLE_UUID;
    CUresult result = LITHOS_REAL(lithos_export_table_fn, cuGetExportTable)(ret_table, uuid);
    LITHOS_HOOK_CALLED(cuGetExportTable);
    if (lithos_hook_counts_calls && uuid)
        say_table(uuid, __builtin_return_address(0));
    if (result == CUDA_SUCCESS && uuid && ret_table && *ret_table &&
        !memcmp(uuid, &qmd_table, sizeof qmd_table) && lithos_hook_client.wanted() && !hook_switched_off()) {
        atomic_store(&start.app_asked, true);
        *ret_table = lithos_tools_table(*ret_table);
    }
    return result;
}

bool lithos_hook_app_asked_for_table(void)
{
    return atomic_load(&start.app_asked);
}

typedef CUresult (*green_ctx_create_fn)(CUgreenCtx *, void *, CUdevice, unsigned int);

HIDDEN CUresult lithos_hook_cuGreenCtxCreate(CUgreenCtx *ret_ctx, void *resources, CUdevice device,
                                             unsigned int flags)
{
    CUresult result = LITHOS_REAL(green_ctx_create_fn, cuGreenCtxCreate)(ret_ctx, resources, device, flags);
    LITHOS_HOOK_CALLED(cuGreenCtxCreate);
    if (result == CUDA_ERROR_NOT_SUPPORTED && lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED)
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "cuGreenCtxCreate failed with 801 (not supported): the driver refuses green contexts while "
            "LithOS masks launches. Start this program with `lithos run --coarse`");
    return result;
}

/* ---- launches ---- */

enum special {
    SPECIAL_NOTHING, /* it is launched like any other */
    SPECIAL_QUEUED,  /* it has taken its place in a queue */
    SPECIAL_CUT,     /* it was launched in parts */
};

/* A launch that may go another way, or whose blocks may wait for each other. */
static __attribute__((noinline)) enum special launch_special(enum lithos_export export,
                                                             const struct lithos_launch *what,
                                                             uint32_t *ret_together_sms, CUresult *ret_result)
{
    if (lithos_order_on() && lithos_order_launch(export, what, ret_result))
        return SPECIAL_QUEUED;
    if (atomic_load_explicit(&lithos_atoms_state, memory_order_relaxed) &&
        lithos_atoms_launch(what, ret_result))
        return SPECIAL_CUT;
    if (what->cooperative || lithos_names_waits(what->function))
        *ret_together_sms = lithos_together_sms(what);
    return SPECIAL_NOTHING;
}

/* Of the function f. The rest says what is launched: the members of a struct lithos_launch. With queues on it may take its place in
 * one, with atoms on it may be launched in parts. */
#define LAUNCH(name, type, call, ...)                                                                    \
    type real = LITHOS_REAL(type, name);                                                                 \
    if (!lithos_hook_active())                                                                           \
        return real call;                                                                                \
    uint32_t together_sms = 0;                                                                           \
    if (__builtin_expect(lithos_order_on() ||                                                            \
                             atomic_load_explicit(&lithos_atoms_state, memory_order_relaxed) ||          \
                             ((struct lithos_launch){__VA_ARGS__}).cooperative || lithos_names_waits(f), \
                         0)) {                                                                           \
        const struct lithos_launch what = {__VA_ARGS__};                                                 \
        CUresult done;                                                                                   \
        enum special special = launch_special(LITHOS_EXPORT_##name, &what, &together_sms, &done);        \
        if (special == SPECIAL_CUT)                                                                      \
            LITHOS_HOOK_CALLED(name);                                                                    \
        if (special != SPECIAL_NOTHING)                                                                  \
            return done;                                                                                 \
    }                                                                                                    \
    struct lithos_ticket ticket;                                                                         \
    lithos_ticket_open(&ticket, LITHOS_TICKET_LAUNCH, f);                                                \
    ticket.together_sms = together_sms;                                                                  \
    if (lithos_narrow_on())                                                                              \
        lithos_narrow_ask(&ticket, &(struct lithos_launch){__VA_ARGS__});                                \
    CUresult result = real call;                                                                         \
    lithos_ticket_close(&ticket);                                                                        \
    LITHOS_HOOK_CALLED(name);                                                                            \
    if (__builtin_expect(result == CUDA_SUCCESS, 1))                                                     \
        lithos_count(LITHOS_COUNT_LAUNCHES, 1);                                                          \
    if (__builtin_expect(ticket.observe, 1)) {                                                           \
        const struct lithos_launch what = {__VA_ARGS__};                                                 \
        lithos_hook_client.observer->launched(&ticket, &what, result == CUDA_SUCCESS);                   \
    }                                                                                                    \
    return result

#define PER_THREAD(stream) ((stream) ? (stream) : CU_STREAM_PER_THREAD)

#define WHAT_KERNEL(stream_of)                                                       \
    .function = f, .stream = stream_of, .grid = {gx, gy, gz}, .block = {bx, by, bz}, \
    .shared_bytes = shared_bytes
#define WHAT_CONFIG(stream_of)                                                                          \
    .function = f, .stream = stream_of, .grid = {config->gridDimX, config->gridDimY, config->gridDimZ}, \
    .block = {config->blockDimX, config->blockDimY, config->blockDimZ},                                 \
    .shared_bytes = config->sharedMemBytes, .cooperative = is_cooperative(config), .config = config
#define CUTTABLE .params = params, .extra = extra, .cuttable = true

/* The exported name is the function's own: exports.S has no entry for it. */
#define DIRECT(name, ...)                                              \
    LITHOS_EXPORT LITHOS_LAUNCH_PATH extern CUresult name(__VA_ARGS__) \
        __attribute__((alias("lithos_hook_" #name)))

static bool is_cooperative(const CUlaunchConfig *config)
{
    for (unsigned i = 0; config->attrs && i < config->numAttrs; i++)
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            return config->attrs[i].value.cooperative != 0;
    return false;
}

typedef CUresult (*launch_kernel_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                     unsigned, CUstream, void **, void **);

HIDDEN LITHOS_FUSED CUresult lithos_hook_cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz,
                                                        unsigned bx, unsigned by, unsigned bz,
                                                        unsigned shared_bytes, CUstream stream, void **params,
                                                        void **extra)
{
    LAUNCH(cuLaunchKernel, launch_kernel_fn, (f, gx, gy, gz, bx, by, bz, shared_bytes, stream, params, extra),
           WHAT_KERNEL(stream), CUTTABLE);
}

DIRECT(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
       CUstream, void **, void **);

HIDDEN CUresult lithos_hook_cuLaunchKernel_ptsz(CUfunction f, unsigned gx, unsigned gy, unsigned gz,
                                                unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes,
                                                CUstream stream, void **params, void **extra)
{
    LAUNCH(cuLaunchKernel_ptsz, launch_kernel_fn,
           (f, gx, gy, gz, bx, by, bz, shared_bytes, stream, params, extra), WHAT_KERNEL(PER_THREAD(stream)),
           CUTTABLE);
}

typedef CUresult (*launch_ex_fn)(const CUlaunchConfig *, CUfunction, void **, void **);

HIDDEN LITHOS_FUSED CUresult lithos_hook_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f,
                                                          void **params, void **extra)
{
    LAUNCH(cuLaunchKernelEx, launch_ex_fn, (config, f, params, extra), WHAT_CONFIG(config->hStream),
           CUTTABLE);
}

DIRECT(cuLaunchKernelEx, const CUlaunchConfig *, CUfunction, void **, void **);

HIDDEN CUresult lithos_hook_cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params,
                                                  void **extra)
{
    LAUNCH(cuLaunchKernelEx_ptsz, launch_ex_fn, (config, f, params, extra),
           WHAT_CONFIG(PER_THREAD(config->hStream)), CUTTABLE);
}

typedef CUresult (*launch_cooperative_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                                          unsigned, unsigned, CUstream, void **);

HIDDEN CUresult lithos_hook_cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz,
                                                      unsigned bx, unsigned by, unsigned bz,
                                                      unsigned shared_bytes, CUstream stream, void **params)
{
    LAUNCH(cuLaunchCooperativeKernel, launch_cooperative_fn,
           (f, gx, gy, gz, bx, by, bz, shared_bytes, stream, params), WHAT_KERNEL(stream), .params = params,
           .cooperative = true);
}

HIDDEN CUresult lithos_hook_cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned gx, unsigned gy,
                                                           unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                                           unsigned shared_bytes, CUstream stream,
                                                           void **params)
{
    LAUNCH(cuLaunchCooperativeKernel_ptsz, launch_cooperative_fn,
           (f, gx, gy, gz, bx, by, bz, shared_bytes, stream, params), WHAT_KERNEL(PER_THREAD(stream)),
           .params = params, .cooperative = true);
}

typedef CUresult (*launch_multi_fn)(void *, unsigned, unsigned);

/* CUDA_LAUNCH_PARAMS */
struct multi_params {
    CUfunction function;
    unsigned grid[3], block[3], shared_bytes;
    CUstream stream;
    void **params;
};

HIDDEN CUresult lithos_hook_cuLaunchCooperativeKernelMultiDevice(void *launches, unsigned count,
                                                                 unsigned flags)
{
    launch_multi_fn real = LITHOS_REAL(launch_multi_fn, cuLaunchCooperativeKernelMultiDevice);
    if (!lithos_hook_active())
        return real(launches, count, flags);
    LITHOS_ORDER(cuLaunchCooperativeKernelMultiDevice, (uintptr_t)launches, count, flags, 0, 0, 0)
    struct lithos_ticket ticket;
    lithos_ticket_open(&ticket, LITHOS_TICKET_LAUNCH, NULL);
    ticket.qmds_due = count;
    ticket.together_sms = UINT32_MAX; /* of the one on each device nothing is looked up */
    if (count > 1)                    /* one QMD a device, and nothing says which comes when */
        ticket.device = atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    CUresult result = real(launches, count, flags);
    lithos_ticket_close(&ticket);
    LITHOS_HOOK_CALLED(cuLaunchCooperativeKernelMultiDevice);
    if (result == CUDA_SUCCESS) {
        lithos_count(LITHOS_COUNT_LAUNCHES, count);
        lithos_atoms_left_whole(LITHOS_WHOLE_COOPERATIVE, count);
    }
    for (unsigned i = 0; ticket.observe && result == CUDA_SUCCESS && launches && i < count; i++) {
        const struct multi_params *p = &((const struct multi_params *)launches)[i];
        const struct lithos_launch what = {
            .function = p->function,
            .stream = p->stream,
            .grid = {p->grid[0], p->grid[1], p->grid[2]},
            .block = {p->block[0], p->block[1], p->block[2]},
            .shared_bytes = p->shared_bytes,
            .cooperative = true,
        };
        lithos_hook_client.observer->launched(&ticket, &what, true);
    }
    return result;
}

typedef CUresult (*launch_fn)(CUfunction);
typedef CUresult (*launch_grid_fn)(CUfunction, int, int);
typedef CUresult (*launch_grid_async_fn)(CUfunction, int, int, CUstream);

HIDDEN CUresult lithos_hook_cuLaunch(CUfunction f)
{
    LAUNCH(cuLaunch, launch_fn, (f), .function = f, .grid = {1, 1, 1});
}

HIDDEN CUresult lithos_hook_cuLaunchGrid(CUfunction f, int width, int height)
{
    LAUNCH(cuLaunchGrid, launch_grid_fn, (f, width, height), .function = f,
           .grid = {(unsigned)width, (unsigned)height, 1});
}

HIDDEN CUresult lithos_hook_cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    LAUNCH(cuLaunchGridAsync, launch_grid_async_fn, (f, width, height, stream), .function = f,
           .stream = stream, .grid = {(unsigned)width, (unsigned)height, 1});
}
