#include "driver/probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/census.h"
#include "driver/loader.h"
#include "driver/probe_internal.h"
#include "driver/qmd_table.h"
#include "hw/qmd.h"

struct lithos_probe_cuda lithos_probe_cu;
struct lithos_probe_seen lithos_probe_seen;

/* Where the masks' bits lie, by generation: they cannot be probed without the risk of a hang (a cluster without room),
 * so only what was measured, or what cannot matter, stands here. */
static const struct {
    int cc_major;
    uint32_t sms_per_tpc, gpc_stride, gpc_count;
} generations[] = {
    {7, 2, 7,
     6}, /* no clusters before Hopper, so the grouping has no effect but on which TPCs are neighbours: */
    {8, 2, 8, 8}, /* GV100 has 6 GPCs of 7 TPCs, GA100 8 of 8 (white papers); not proved on a card */
    {9, 2, 9, 8}, /* measured on an H200 (docs/hardware.md, "TPC masks") */
};

int lithos_probe_fail(char *text, int error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, LITHOS_PROBE_TEXT, fmt, ap);
    va_end(ap);
    return error;
}

const char *lithos_probe_result_name(CUresult result)
{
    static char number[32];
    const char *name = NULL;
    if (lithos_probe_cu.error_name && lithos_probe_cu.error_name(result, &name) == CUDA_SUCCESS && name)
        return name;
    snprintf(number, sizeof number, "error %d", result);
    return number;
}

/* ---- the callback: one for the whole probe ---- */

static void on_qmd(void *user, int domain, int id, const void *params)
{
    (void)user;
    if (domain != LITHOS_QMD_DOMAIN || id != LITHOS_QMD_CALLBACK_ID || !lithos_probe_seen.in_census)
        return;
    const struct lithos_qmd_layout *layout;
    uint64_t words[LITHOS_QMD_PARAMS_QMD + 1];
    memcpy(&lithos_probe_seen.params_bytes, params, sizeof lithos_probe_seen.params_bytes);
    lithos_probe_seen.seen++;
    lithos_probe_seen.result = -EPROTO;
    if (lithos_probe_seen.params_bytes != LITHOS_QMD_PARAMS_BYTES)
        return;
    memcpy(words, params, sizeof words);
    void *qmd = (void *)(uintptr_t)words[LITHOS_QMD_PARAMS_QMD]; /* NOLINT(performance-no-int-to-ptr) */
    lithos_probe_seen.result = lithos_qmd_identify(lithos_probe_seen.cc_major, lithos_probe_seen.cc_minor,
                                                   qmd, lithos_probe_seen.allow_unproved, &layout);
    if (lithos_probe_seen.result < 0)
        return;
    snprintf(lithos_probe_seen.layout, sizeof lithos_probe_seen.layout, "%s", lithos_qmd_layout_name(layout));
    if (lithos_probe_seen.stamp_address)
        lithos_probe_seen.stamp_result = lithos_qmd_set_release(
            layout, qmd,
            &(struct lithos_qmd_release){lithos_probe_seen.stamp_address, lithos_probe_seen.stamp_payload},
            NULL);
    if (lithos_probe_seen.edit)
        lithos_probe_seen.edit(layout, qmd);
    if (!lithos_probe_seen.masked)
        return;
    lithos_probe_seen.result = lithos_qmd_set_tpcs(layout, qmd, &lithos_probe_seen.mask);
    if (lithos_probe_seen.result == -ERANGE) { /* a layout whose mask has 64 bits */
        lithos_probe_seen.mask_bits = 64;
        lithos_probe_seen.mask.w[1] = 0;
        lithos_probe_seen.result = lithos_qmd_set_tpcs(layout, qmd, &lithos_probe_seen.mask);
    }
}

/* ---- opening ---- */

static int find_functions(struct lithos_probe *p)
{
#define X(member, name, parameters)                                                                      \
    lithos_probe_cu.member = (CUresult(*) parameters)lithos_driver_symbol(#name);                        \
    if (!lithos_probe_cu.member)                                                                         \
        return lithos_probe_fail(p->error, -ENOTSUP, "the driver at %s has no " #name ": it is too old", \
                                 lithos_driver_path());
    LITHOS_PROBE_CUDA(X)
#undef X
    return 0;
}

static void format_uuid(const uint8_t uuid[16], char text[41])
{
    char *at = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++)
        at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static int list_gpu(struct lithos_probe_gpu *gpu, int index)
{
    CUuuid uuid;
    gpu->index = index;
    CUresult r = lithos_probe_cu.device_get(&gpu->device, index);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.device_name(gpu->name, sizeof gpu->name, gpu->device);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.device_uuid(&uuid, gpu->device);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.device_attribute(&gpu->cc_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                                             gpu->device);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.device_attribute(&gpu->cc_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                                             gpu->device);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.device_attribute(&gpu->sm_count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                             gpu->device);
    if (r != CUDA_SUCCESS)
        return lithos_probe_fail(gpu->error, -EIO, "the driver does not describe GPU %d: %s", index,
                                 lithos_probe_result_name(r));
    memcpy(gpu->uuid, uuid.bytes, sizeof gpu->uuid);
    format_uuid(gpu->uuid, gpu->uuid_text);
    return 0;
}

/* Whether launches on a GPU can be masked, as far as it shows without one. */
static void judge_hook(const struct lithos_probe *p, struct lithos_probe_gpu *gpu)
{
    int r = lithos_qmd_capability(gpu->cc_major, gpu->cc_minor, lithos_probe_seen.allow_unproved);
    gpu->hook = false;
    if (!p->table_ok)
        lithos_probe_fail(gpu->why, 0, "%s", p->table_why);
    else if (r == -EPERM)
        lithos_probe_fail(
            gpu->why, 0,
            "the queue descriptors of compute capability %d.%d are known but not proved on a card: "
            "LITHOS_UNTESTED_GPU=1 "
            "tries them, `lithos run --coarse` does without",
            gpu->cc_major, gpu->cc_minor);
    else if (r < 0)
        lithos_probe_fail(
            gpu->why, 0,
            "the queue descriptors of compute capability %d.%d are not known: use `lithos run --coarse`",
            gpu->cc_major, gpu->cc_minor);
    else
        gpu->hook = true;
}

int lithos_probe_open(struct lithos_probe *p)
{
    memset(p, 0, sizeof *p);
    if (!lithos_driver_handle())
        return lithos_probe_fail(p->error, -ENODEV, "no CUDA driver: %s", lithos_driver_why());
    snprintf(p->driver, sizeof p->driver, "%s", lithos_driver_version());
    p->is_virtual = lithos_driver_symbol("lithos_vgpu_version") != NULL;
    int r = find_functions(p);
    if (r < 0)
        return r;
    CUresult result = lithos_probe_cu.init(0);
    if (result != CUDA_SUCCESS)
        return lithos_probe_fail(p->error, -ENODEV, "cuInit fails with %s", lithos_probe_result_name(result));
    int version = 0, count = 0;
    if (p->is_virtual && lithos_probe_cu.version(&version) == CUDA_SUCCESS)
        snprintf(p->driver, sizeof p->driver, "virtual-%d", version);
    result = lithos_probe_cu.device_count(&count);
    if (result != CUDA_SUCCESS || count < 1)
        return lithos_probe_fail(p->error, -ENODEV, "the driver shows no GPU (%s)",
                                 lithos_probe_result_name(result));
    const char *env = getenv("LITHOS_UNTESTED_GPU");
    lithos_probe_seen.allow_unproved = env && !strcmp(env, "1");
    p->table_ok = lithos_qmd_table_subscribe(lithos_probe_cu.export_table, on_qmd, NULL, p->table_why,
                                             sizeof p->table_why) == 0;
    for (int i = 0; i < count && p->gpu_count < LITHOS_PROBE_MAX_GPUS; i++) {
        struct lithos_probe_gpu *gpu = &p->gpus[p->gpu_count++];
        if (list_gpu(gpu, i) == 0)
            judge_hook(p, gpu);
    }
    return 0;
}

/* ---- the census ---- */

void lithos_probe_bench_finish(struct lithos_probe_bench *b)
{
    if (b->stream)
        lithos_probe_cu.stream_destroy(b->stream);
    if (b->info)
        lithos_probe_cu.mem_free(b->info);
    if (b->module)
        lithos_probe_cu.module_unload(b->module);
    if (b->ctx) {
        lithos_probe_cu.ctx_set(NULL);
        lithos_probe_cu.ctx_release(b->gpu->device);
    }
}

int lithos_probe_bench_init(struct lithos_probe_bench *b, struct lithos_probe_gpu *gpu)
{
    *b = (struct lithos_probe_bench){.gpu = gpu};
    const char *step = "cuDevicePrimaryCtxRetain";
    CUresult r = lithos_probe_cu.ctx_retain(&b->ctx, gpu->device);
    if (r == CUDA_SUCCESS) {
        step = "cuCtxSetCurrent";
        r = lithos_probe_cu.ctx_set(b->ctx);
    } else {
        b->ctx = NULL;
    }
    if (r == CUDA_SUCCESS) {
        step = "cuModuleLoadData";
        r = lithos_probe_cu.module_load(&b->module, LITHOS_CENSUS_PTX);
    }
    if (r == CUDA_SUCCESS) {
        step = "cuModuleGetFunction";
        r = lithos_probe_cu.module_function(&b->kernel, b->module, LITHOS_CENSUS_KERNEL);
    }
    if (r == CUDA_SUCCESS) {
        step = "cuMemAlloc";
        r = lithos_probe_cu.mem_alloc(&b->info, LITHOS_CENSUS_SLOTS * sizeof(uint32_t));
    }
    int least, greatest;
    if (r == CUDA_SUCCESS &&
        (lithos_probe_cu.priority_range(&least, &greatest) != CUDA_SUCCESS ||
         lithos_probe_cu.stream_create(&b->stream, CU_STREAM_NON_BLOCKING, greatest) != CUDA_SUCCESS))
        b->stream = NULL; /* does without */
    if (r == CUDA_SUCCESS)
        return 0;
    lithos_probe_fail(gpu->error, 0, "%s fails on %s with %s", step, gpu->uuid_text,
                      lithos_probe_result_name(r));
    lithos_probe_bench_finish(b);
    return -EIO;
}

/* How one census is taken. The first way asks for all the shared memory, so that an SM holds one block at a time; a
 * neighbour that holds some of it keeps us off its SM, so later tries ask for none and send more blocks instead. */
struct manner {
    bool all_shared;
    unsigned blocks_per_sm;
    uint32_t spin_ns;
};

static const struct manner manners[] = {
    {true, 2, 20000}, {true, 2, 20000}, {false, 64, 50000}, {false, 64, 200000}};

/* How many SMs a launch reaches, with all bits of the mask on but one (LITHOS_TPC_BITS: no mask at all). >= 0, or
 * negative errno with the GPU's error set. */
static int census(struct lithos_probe_bench *b, unsigned without, const struct manner *how)
{
    static uint32_t info[LITHOS_CENSUS_SLOTS];
    uint32_t spin_ns = how->spin_ns;
    void *params[] = {&b->info, &spin_ns};
    memset(&lithos_probe_seen.mask, 0xff, sizeof lithos_probe_seen.mask);
    lithos_tpcset_remove(&lithos_probe_seen.mask, without);
    lithos_probe_seen.masked = without < LITHOS_TPC_BITS;
    lithos_probe_seen.seen = 0;
    lithos_probe_seen.cc_major = b->gpu->cc_major;
    lithos_probe_seen.cc_minor = b->gpu->cc_minor;
    CUresult r = lithos_probe_cu.mem_set(b->info, 0, LITHOS_CENSUS_SLOTS);
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.ctx_sync(); /* the launch's stream does not wait for the memset's */
    lithos_probe_seen.in_census = true;
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.launch(b->kernel, (unsigned)b->gpu->sm_count * how->blocks_per_sm, 1, 1, 1, 1, 1,
                                   how->all_shared ? (unsigned)b->shared_bytes : 0, b->stream, params, NULL);
    lithos_probe_seen.in_census = false;
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.ctx_sync();
    if (r == CUDA_SUCCESS)
        r = lithos_probe_cu.mem_read(info, b->info, sizeof info);
    if (r != CUDA_SUCCESS)
        return lithos_probe_fail(b->gpu->error, -EIO, "the census kernel fails on %s with %s",
                                 b->gpu->uuid_text, lithos_probe_result_name(r));
    int sms = 0;
    for (unsigned i = 0; i < LITHOS_CENSUS_SLOTS; i++)
        sms += info[i] != 0;
    return sms;
}

/* A first launch without a mask: is the callback called, and is the layout one that we know? */
static int look_at_qmd(struct lithos_probe_bench *b)
{
    struct lithos_probe_gpu *gpu = b->gpu;
    lithos_probe_seen.layout[0] = 0;
    int sms = census(b, LITHOS_TPC_BITS, &manners[0]);
    if (sms < 0)
        return sms;
    gpu->hook = false;
    if (!lithos_probe_seen.seen)
        return lithos_probe_fail(
            gpu->why, -ENOTSUP,
            "the driver took the QMD subscription but does not call it: has a profiler taken it? Use "
            "`lithos run "
            "--coarse`");
    if (lithos_probe_seen.params_bytes != LITHOS_QMD_PARAMS_BYTES)
        return lithos_probe_fail(gpu->why, -ENOTSUP,
                                 "the QMD callback passes %u bytes instead of %u: use `lithos run --coarse`",
                                 lithos_probe_seen.params_bytes, LITHOS_QMD_PARAMS_BYTES);
    if (lithos_probe_seen.result < 0)
        return lithos_probe_fail(
            gpu->why, -ENOTSUP,
            "the queue descriptors of this GPU are of a layout that is %s: use `lithos run --coarse`",
            lithos_probe_seen.result == -EPERM ? "not proved on a card (LITHOS_UNTESTED_GPU=1 tries it)"
                                               : "not known");
    snprintf(gpu->qmd, sizeof gpu->qmd, "%s", lithos_probe_seen.layout);
    gpu->hook = true;
    return 0;
}

/* Does the bit name a TPC? 1 or 0; -EBUSY when no two censuses make sense. */
static int probe_bit(struct lithos_probe_bench *b, unsigned bit, uint32_t sms_per_tpc)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(manners); i++) {
        int sms = census(b, bit, &manners[i]);
        if (sms < 0)
            return sms;
        if (lithos_probe_seen.result < 0)
            return lithos_probe_fail(b->gpu->error, -EIO,
                                     "the mask cannot be written into the queue descriptors of %s",
                                     b->gpu->uuid_text);
        if (sms == b->gpu->sm_count)
            return 0;
        if (sms == b->gpu->sm_count - (int)sms_per_tpc)
            return 1;
    }
    return -EBUSY;
}

static int probe_bits(struct lithos_probe_bench *b, struct lithos_topology *t)
{
    t->valid = (struct lithos_tpcset){{0, 0}};
    lithos_probe_seen.mask_bits = LITHOS_TPC_BITS;
    for (unsigned bit = 0; bit < lithos_probe_seen.mask_bits; bit++) {
        int r = probe_bit(b, bit, t->sms_per_tpc);
        if (r < 0)
            return r;
        if (r)
            lithos_tpcset_add(&t->valid, bit);
    }
    return lithos_tpcset_count(&t->valid) * t->sms_per_tpc == (unsigned)b->gpu->sm_count ? 0 : -EBUSY;
}

static int generation_of(struct lithos_probe_gpu *gpu, struct lithos_topology *ret_topology)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(generations); i++)
        if (generations[i].cc_major == gpu->cc_major) {
            *ret_topology = (struct lithos_topology){.sms_per_tpc = generations[i].sms_per_tpc,
                                                     .gpc_stride = generations[i].gpc_stride,
                                                     .gpc_count = generations[i].gpc_count};
            return 0;
        }
    gpu->hook = false;
    return lithos_probe_fail(
        gpu->why, -ENOTSUP,
        "how the mask bits of compute capability %d.%d are grouped is not known: use `lithos "
        "run --coarse`",
        gpu->cc_major, gpu->cc_minor);
}

static int probe_on(struct lithos_probe_bench *b)
{
    struct lithos_probe_gpu *gpu = b->gpu;
    struct lithos_topology topology = {.reserved = 0};
    if (lithos_probe_cu.device_attribute(&b->shared_bytes,
                                         CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                                         gpu->device) == CUDA_SUCCESS)
        lithos_probe_cu.function_set(b->kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                     b->shared_bytes);
    else
        b->shared_bytes = 0;
    int r = look_at_qmd(b);
    if (r == 0)
        r = generation_of(gpu, &topology);
    if (r < 0)
        return r == -ENOTSUP ? 0 : r; /* not to be masked is an answer, not a failure */
    for (int round = 0; round < 3; round++) {
        r = probe_bits(b, &topology);
        if (r != -EBUSY)
            break;
    }
    if (r == -EBUSY)
        return lithos_probe_fail(
            gpu->error, r,
            "%s is too busy to be probed: other programs kept SMs from the census. Try again when it is idle",
            gpu->uuid_text);
    if (r < 0)
        return r;
    gpu->topology = topology;
    gpu->have_topology = true;
    return 0;
}

int lithos_probe_topology(struct lithos_probe *p, struct lithos_probe_gpu *gpu)
{
    struct lithos_probe_bench b;
    judge_hook(p, gpu);
    if (!gpu->hook)
        return 0;
    if (gpu->sm_count < 1 || gpu->sm_count > (int)LITHOS_CENSUS_SLOTS)
        return lithos_probe_fail(gpu->error, -ERANGE, "%s has %d SMs, which makes no sense", gpu->uuid_text,
                                 gpu->sm_count);
    int r = lithos_probe_bench_init(&b, gpu);
    if (r < 0)
        return r;
    r = probe_on(&b);
    lithos_probe_bench_finish(&b);
    return r;
}

/* ---- completion stamps ---- */

#define STAMP_LAUNCHES 3
#define STAMP_PAGE 4096u
#define STAMP_WAIT_NS (500 * LITHOS_NSEC_PER_MSEC)

/* The stamp of one small kernel. 0 with its time, or -EIO and why. */
static int stamp_once(struct lithos_probe_bench *b, uint64_t *page, CUdeviceptr address, uint64_t payload,
                      uint64_t *ret_time_ns)
{
    struct lithos_probe_gpu *gpu = b->gpu;
    uint32_t spin_ns = 20000;
    void *params[] = {&b->info, &spin_ns};
    lithos_probe_seen.masked = false;
    lithos_probe_seen.seen = 0;
    lithos_probe_seen.stamp_result = -EIO;
    lithos_probe_seen.cc_major = gpu->cc_major;
    lithos_probe_seen.cc_minor = gpu->cc_minor;
    lithos_probe_seen.stamp_address = address;
    lithos_probe_seen.stamp_payload = payload;
    memset(page, 0, LITHOS_QMD_RELEASE_BYTES);
    lithos_probe_seen.in_census = true;
    CUresult r = lithos_probe_cu.launch(b->kernel, 1, 1, 1, 1, 1, 1, 0, b->stream, params, NULL);
    lithos_probe_seen.in_census = false;
    lithos_probe_seen.stamp_address = 0;
    if (r != CUDA_SUCCESS)
        return lithos_probe_fail(gpu->stamps_why, -EIO, "a kernel that is to be stamped fails with %s",
                                 lithos_probe_result_name(r));
    if (lithos_probe_seen.stamp_result < 0)
        return lithos_probe_fail(gpu->stamps_why, -EIO, "release semaphore 1 cannot be set: %s",
                                 strerror(-lithos_probe_seen.stamp_result));
    uint64_t deadline_ns = lithos_now_ns() + STAMP_WAIT_NS;
    while (__atomic_load_n(&page[0], __ATOMIC_ACQUIRE) == 0 && lithos_now_ns() < deadline_ns)
        usleep(20);
    usleep(100); /* the time, should it come apart */
    uint64_t came = __atomic_load_n(&page[0], __ATOMIC_ACQUIRE);
    *ret_time_ns = __atomic_load_n(&page[1], __ATOMIC_ACQUIRE);
    if (came == 0)
        return lithos_probe_fail(gpu->stamps_why, -EIO, "no stamp came within %llu ms",
                                 STAMP_WAIT_NS / LITHOS_NSEC_PER_MSEC);
    if (came != payload)
        return lithos_probe_fail(gpu->stamps_why, -EIO, "a stamp says %llx instead of %llx",
                                 (unsigned long long)came, (unsigned long long)payload);
    return 0;
}

static int stamp_all(struct lithos_probe_bench *b, uint64_t *page, CUdeviceptr address)
{
    uint64_t before_ns = 0, time_ns = 0;
    for (unsigned i = 0; i < STAMP_LAUNCHES; i++) {
        uint64_t at = i * LITHOS_QMD_RELEASE_BYTES;
        int r = stamp_once(b, page + at / sizeof *page, address + at, 0x7105 + i, &time_ns);
        if (r < 0)
            return r;
        /* In order and in ns: it grows, by less than the second that this takes at most. */
        if (time_ns <= before_ns || (i && time_ns - before_ns > 2 * LITHOS_NSEC_PER_SEC))
            return lithos_probe_fail(b->gpu->stamps_why, -EIO,
                                     "the times of two stamps are %llu and %llu ns, which makes no sense",
                                     (unsigned long long)before_ns, (unsigned long long)time_ns);
        before_ns = time_ns;
    }
    b->gpu->stamps = true;
    return 0;
}

int lithos_probe_stamps(struct lithos_probe_gpu *gpu)
{
    struct lithos_probe_bench b;
    CUdeviceptr address = 0;
    void *page = MAP_FAILED;
    gpu->stamps = false;
    gpu->stamps_why[0] = 0;
    int r = lithos_probe_bench_init(&b, gpu);
    if (r < 0)
        return r;
    int fd = memfd_create("lithos-probe", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, STAMP_PAGE) == 0)
        page = mmap(NULL, STAMP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    r = page == MAP_FAILED ? -errno : 0;
    if (fd >= 0)
        close(fd);
    if (r < 0) {
        lithos_probe_fail(gpu->error, r, "no shared memory: %s", strerror(-r));
        goto finish;
    }
    gpu->have_stamps = true;
    CUresult result =
        lithos_probe_cu.host_register(page, STAMP_PAGE, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    if (result != CUDA_SUCCESS) {
        lithos_probe_fail(gpu->stamps_why, 0, "the driver does not register shared memory: %s",
                          lithos_probe_result_name(result));
        goto unmap;
    }
    result = lithos_probe_cu.host_pointer(&address, page, 0);
    if (result != CUDA_SUCCESS)
        lithos_probe_fail(gpu->stamps_why, 0, "registered memory has no address on the GPU: %s",
                          lithos_probe_result_name(result));
    else if (stamp_all(&b, page, address) == 0)
        lithos_probe_cu.ctx_sync();
    /* Where a stamp may still come, the page stays until the process ends. */
    if (gpu->stamps)
        lithos_probe_cu.host_unregister(page);
unmap:
    if (gpu->stamps || !address)
        munmap(page, STAMP_PAGE);
finish:
    lithos_probe_bench_finish(&b);
    return r;
}

int lithos_probe_canary(struct lithos_probe_gpu *gpu)
{
    struct lithos_probe_bench b;
    int r = lithos_probe_bench_init(&b, gpu);
    if (r < 0)
        return r;
    static const struct manner small = {false, 1, 0};
    int sms = census(&b, LITHOS_TPC_BITS, &small);
    lithos_probe_bench_finish(&b);
    if (sms == 0)
        return lithos_probe_fail(gpu->error, -EIO, "a kernel on %s ended and left nothing behind",
                                 gpu->uuid_text);
    return sms < 0 ? sms : 0;
}
