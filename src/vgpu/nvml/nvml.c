/* The virtual libnvidia-ml.so.1: what LithOS and tools like nvidia-smi ask of a card's clocks, power and energy, answered by
 * lithos-vgpud. A function that is not here is missing, as in an older NVML; one that is here and cannot be answered says
 * NVML_ERROR_NOT_SUPPORTED. One lock around everything: a question is a round trip. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "nvml/nvml_abi.h"
#include "vgpu/wire.h"

#define TIMEOUT_S 5
#define DRIVER "580.0-lithos-vgpu"

#define NVML_API(name, ...)                       \
    LITHOS_EXPORT nvmlReturn_t name(__VA_ARGS__); \
    nvmlReturn_t name(__VA_ARGS__)

struct nvmlDevice_st {
    struct vgpu_card card;

    uint64_t asked_ns, busy_ns;
};

static struct {
    pthread_mutex_t lock;
    int fd;
    unsigned refs, count;
    struct nvmlDevice_st devices[VGPU_MAX_CARDS];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

/* --- the connection --- */

static bool say(void *msg, uint16_t type, size_t size)
{
    *(struct vgpu_msg_header *)msg = (struct vgpu_msg_header){
        .magic = VGPU_WIRE_MAGIC, .version = VGPU_WIRE_VERSION, .type = type, .size = (uint32_t)size};
    return send(state.fd, msg, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool hear(void *msg, uint16_t type, size_t size)
{
    ssize_t n;
    do {
        n = recv(state.fd, msg, size, 0);
    } while (n < 0 && errno == EINTR);
    const struct vgpu_msg_header *h = msg;
    return n == (ssize_t)size && h->magic == VGPU_WIRE_MAGIC && h->version == VGPU_WIRE_VERSION &&
           h->type == type;
}

static bool handshake(void)
{
    struct vgpu_hello hello = {0};
    struct vgpu_welcome welcome;

    if (!say(&hello, VGPU_HELLO, sizeof hello) || !hear(&welcome, VGPU_WELCOME, sizeof welcome) ||
        welcome.cards > VGPU_MAX_CARDS)
        return false;
    state.count = welcome.cards;
    for (unsigned i = 0; i < state.count; i++) {
        state.devices[i] = (struct nvmlDevice_st){0};
        if (!hear(&state.devices[i].card, VGPU_CARD, sizeof state.devices[i].card))
            return false;
        state.devices[i].card.name[VGPU_NAME_BYTES - 1] = 0;
    }
    return true;
}

static nvmlReturn_t link_open(void)
{
    const char *path = getenv("LITHOS_VGPU_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_sec = TIMEOUT_S};

    if (!path || !*path || strlen(path) >= sizeof addr.sun_path)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    strcpy(addr.sun_path, path);
    state.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (state.fd < 0)
        return NVML_ERROR_UNKNOWN;
    setsockopt(state.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(state.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(state.fd, (struct sockaddr *)&addr, sizeof addr) == 0 && handshake())
        return NVML_SUCCESS;
    close(state.fd);
    state.fd = -1;
    return NVML_ERROR_DRIVER_NOT_LOADED;
}

static nvmlReturn_t ask(nvmlDevice_t d, enum vgpu_query_what what, unsigned min_mhz, unsigned max_mhz,
                        struct vgpu_answer *ret)
{
    static const nvmlReturn_t results[] = {
        [VGPU_QUERY_OK] = NVML_SUCCESS,
        [VGPU_QUERY_INVALID] = NVML_ERROR_INVALID_ARGUMENT,
        [VGPU_QUERY_NOT_SUPPORTED] = NVML_ERROR_NOT_SUPPORTED,
        [VGPU_QUERY_NO_PERMISSION] = NVML_ERROR_NO_PERMISSION,
    };
    nvmlReturn_t r = NVML_ERROR_GPU_IS_LOST;

    pthread_mutex_lock(&state.lock);
    if (!state.refs) {
        r = NVML_ERROR_UNINITIALIZED;
    } else if (d < state.devices || d >= state.devices + state.count) {
        r = NVML_ERROR_INVALID_ARGUMENT;
    } else {
        struct vgpu_query q = {.card = d->card.index, .what = what, .min_mhz = min_mhz, .max_mhz = max_mhz};
        if (say(&q, VGPU_QUERY, sizeof q) && hear(ret, VGPU_ANSWER, sizeof *ret) && ret->result >= 0 &&
            (size_t)ret->result < LITHOS_ARRAY_SIZE(results))
            r = results[ret->result];
    }
    pthread_mutex_unlock(&state.lock);
    return r;
}

static nvmlReturn_t state_of(nvmlDevice_t d, const void *out, struct vgpu_answer *ret)
{
    return out ? ask(d, VGPU_QUERY_STATE, 0, 0, ret) : NVML_ERROR_INVALID_ARGUMENT;
}

/* --- the library --- */

NVML_API(nvmlInit_v2, void)
{
    pthread_mutex_lock(&state.lock);
    const nvmlReturn_t r = state.refs ? NVML_SUCCESS : link_open();
    state.refs += r == NVML_SUCCESS;
    pthread_mutex_unlock(&state.lock);
    return r;
}

NVML_API(nvmlInit, void)
{
    return nvmlInit_v2();
}

NVML_API(nvmlInitWithFlags, unsigned int flags)
{
    (void)flags;
    return nvmlInit_v2();
}

NVML_API(nvmlShutdown, void)
{
    nvmlReturn_t r = NVML_SUCCESS;
    pthread_mutex_lock(&state.lock);
    if (!state.refs) {
        r = NVML_ERROR_UNINITIALIZED;
    } else if (--state.refs == 0) {
        close(state.fd);
        state.fd = -1;
    }
    pthread_mutex_unlock(&state.lock);
    return r;
}

LITHOS_EXPORT const char *nvmlErrorString(nvmlReturn_t result);
const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
        return "Timeout";
    case NVML_ERROR_GPU_IS_LOST:
        return "GPU is lost";
    default:
        return "Unknown Error";
    }
}

static nvmlReturn_t text(char *to, unsigned int room, const char *from)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) >= room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return NVML_SUCCESS;
}

NVML_API(nvmlSystemGetDriverVersion, char *version, unsigned int length)
{
    return text(version, length, DRIVER);
}

NVML_API(nvmlSystemGetNVMLVersion, char *version, unsigned int length)
{
    return text(version, length, "12." DRIVER);
}

/* --- devices --- */

static nvmlReturn_t known(nvmlDevice_t d)
{
    pthread_mutex_lock(&state.lock);
    const nvmlReturn_t r = !state.refs ? NVML_ERROR_UNINITIALIZED
                           : d >= state.devices && d < state.devices + state.count
                               ? NVML_SUCCESS
                               : NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_unlock(&state.lock);
    return r;
}

NVML_API(nvmlDeviceGetCount_v2, unsigned int *count)
{
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_lock(&state.lock);
    const bool ready = state.refs;
    if (ready)
        *count = state.count;
    pthread_mutex_unlock(&state.lock);
    return ready ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

NVML_API(nvmlDeviceGetCount, unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

NVML_API(nvmlDeviceGetHandleByIndex_v2, unsigned int index, nvmlDevice_t *device)
{
    if (!device || index >= VGPU_MAX_CARDS)
        return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t r = known(&state.devices[index]);
    if (r == NVML_SUCCESS)
        *device = &state.devices[index];
    return r;
}

NVML_API(nvmlDeviceGetHandleByIndex, unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static void uuid_text(const struct nvmlDevice_st *d, char uuid[NVML_DEVICE_UUID_BYTES])
{
    size_t at = 4;

    strcpy(uuid, "GPU-");
    for (unsigned i = 0; i < 16; i++)
        at += (size_t)snprintf(uuid + at, NVML_DEVICE_UUID_BYTES - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", d->card.uuid[i]);
}

NVML_API(nvmlDeviceGetHandleByUUID, const char *uuid, nvmlDevice_t *device)
{
    char mine[NVML_DEVICE_UUID_BYTES];

    if (!uuid || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < VGPU_MAX_CARDS; i++) {
        const nvmlReturn_t r = known(&state.devices[i]);
        if (r == NVML_ERROR_UNINITIALIZED)
            return r;
        if (r != NVML_SUCCESS)
            break;
        uuid_text(&state.devices[i], mine);
        if (!strcmp(uuid, mine)) {
            *device = &state.devices[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_API(nvmlDeviceGetIndex, nvmlDevice_t device, unsigned int *index)
{
    const nvmlReturn_t r = index ? known(device) : NVML_ERROR_INVALID_ARGUMENT;
    if (r == NVML_SUCCESS)
        *index = device->card.index;
    return r;
}

NVML_API(nvmlDeviceGetName, nvmlDevice_t device, char *name, unsigned int length)
{
    const nvmlReturn_t r = known(device);
    return r == NVML_SUCCESS ? text(name, length, device->card.name) : r;
}

NVML_API(nvmlDeviceGetUUID, nvmlDevice_t device, char *uuid, unsigned int length)
{
    char mine[NVML_DEVICE_UUID_BYTES];
    const nvmlReturn_t r = known(device);

    if (r != NVML_SUCCESS)
        return r;
    uuid_text(device, mine);
    return text(uuid, length, mine);
}

/* --- clocks --- */

NVML_API(nvmlDeviceGetClockInfo, nvmlDevice_t device, int type, unsigned int *mhz)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, mhz, &a);
    if (r == NVML_SUCCESS)
        *mhz = type == NVML_CLOCK_MEM ? a.memory_mhz : a.mhz;
    return r;
}

NVML_API(nvmlDeviceGetMaxClockInfo, nvmlDevice_t device, int type, unsigned int *mhz)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, mhz, &a);
    if (r == NVML_SUCCESS)
        *mhz = type == NVML_CLOCK_MEM ? a.memory_mhz : a.max_mhz;
    return r;
}

NVML_API(nvmlDeviceGetClock, nvmlDevice_t device, int type, int id, unsigned int *mhz)
{
    return id == NVML_CLOCK_ID_CURRENT ? nvmlDeviceGetClockInfo(device, type, mhz) : NVML_ERROR_NOT_SUPPORTED;
}

NVML_API(nvmlDeviceGetSupportedMemoryClocks, nvmlDevice_t device, unsigned int *count, unsigned int *mhz)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, count, &a);
    if (r != NVML_SUCCESS)
        return r;
    const unsigned int room = *count;
    *count = 1;
    if (room < 1 || !mhz)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    mhz[0] = a.memory_mhz;
    return NVML_SUCCESS;
}

NVML_API(nvmlDeviceGetSupportedGraphicsClocks, nvmlDevice_t device, unsigned int memory_mhz,
         unsigned int *count, unsigned int *mhz)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, count, &a);
    if (r != NVML_SUCCESS)
        return r;
    if (memory_mhz != a.memory_mhz || !a.step_mhz)
        return NVML_ERROR_NOT_FOUND;
    const unsigned int n = (a.max_mhz - a.min_mhz) / a.step_mhz + 1, room = *count;
    *count = n;
    if (room < n || !mhz)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < n; i++)
        mhz[i] = a.max_mhz - i * a.step_mhz;
    return NVML_SUCCESS;
}

NVML_API(nvmlDeviceSetGpuLockedClocks, nvmlDevice_t device, unsigned int min_mhz, unsigned int max_mhz)
{
    struct vgpu_answer a;
    return ask(device, VGPU_QUERY_LOCK, min_mhz, max_mhz, &a);
}

NVML_API(nvmlDeviceResetGpuLockedClocks, nvmlDevice_t device)
{
    struct vgpu_answer a;
    return ask(device, VGPU_QUERY_RESET, 0, 0, &a);
}

NVML_API(nvmlDeviceGetCurrentClocksEventReasons, nvmlDevice_t device, unsigned long long *reasons)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, reasons, &a);
    if (r == NVML_SUCCESS)
        *reasons = a.locked ? NVML_CLOCKS_REASON_APPLICATIONS : 0;
    return r;
}

NVML_API(nvmlDeviceGetCurrentClocksThrottleReasons, nvmlDevice_t device, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

/* --- power --- */

NVML_API(nvmlDeviceGetPowerUsage, nvmlDevice_t device, unsigned int *mw)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, mw, &a);
    if (r == NVML_SUCCESS)
        *mw = a.power_mw;
    return r;
}

NVML_API(nvmlDeviceGetTotalEnergyConsumption, nvmlDevice_t device, unsigned long long *mj)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, mj, &a);
    if (r == NVML_SUCCESS)
        *mj = a.energy_mj;
    return r;
}

NVML_API(nvmlDeviceGetPowerManagementLimit, nvmlDevice_t device, unsigned int *mw)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, mw, &a);
    if (r == NVML_SUCCESS)
        *mw = a.limit_mw;
    return r;
}

NVML_API(nvmlDeviceGetEnforcedPowerLimit, nvmlDevice_t device, unsigned int *mw)
{
    return nvmlDeviceGetPowerManagementLimit(device, mw);
}

/* Since it was asked last: the first answer says nothing. */
NVML_API(nvmlDeviceGetUtilizationRates, nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct vgpu_answer a;
    const nvmlReturn_t r = state_of(device, utilization, &a);
    if (r != NVML_SUCCESS)
        return r;
    const uint64_t now_ns = lithos_now_ns();
    const uint64_t since_ns = now_ns - device->asked_ns, busy_ns = a.busy_ns - device->busy_ns;
    const uint64_t percent = device->asked_ns && since_ns ? 100 * busy_ns / since_ns : 0;
    *utilization = (nvmlUtilization_t){.gpu = (unsigned)LITHOS_MIN(percent, 100)};
    device->asked_ns = now_ns;
    device->busy_ns = a.busy_ns;
    return NVML_SUCCESS;
}

NVML_API(nvmlDeviceGetMemoryInfo, nvmlDevice_t device, nvmlMemory_t *memory)
{
    const nvmlReturn_t r = memory ? known(device) : NVML_ERROR_INVALID_ARGUMENT;
    /* what programs hold of it is theirs to know: here it counts as free */
    if (r == NVML_SUCCESS)
        *memory = (nvmlMemory_t){.total = device->card.total_mem, .free = device->card.total_mem};
    return r;
}
