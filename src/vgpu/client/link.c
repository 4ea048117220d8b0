/* The connection to lithos-vgpud, and the thread that reads it. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vgpu/client/client.h"
#include "vgpu/client/mps_client.h"

#define HANDSHAKE_TIMEOUT_MS 30000

union packet {
    struct vgpu_msg_header h;
    struct vgpu_welcome welcome;
    struct vgpu_card card;
    struct vgpu_done done;
    struct vgpu_placement placement;
    struct vgpu_fault fault;
};

void vgpu_msg_init(struct vgpu_msg_header *h, uint16_t type, size_t size)
{
    *h = (struct vgpu_msg_header){
        .magic = VGPU_WIRE_MAGIC, .version = VGPU_WIRE_VERSION, .type = type, .size = (uint32_t)size};
}

void vgpu_link_send(const void *msg, size_t size)
{
    ssize_t n;
    do {
        n = send(vgpu.fd, msg, size, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)size)
        vgpu_lost(CUDA_ERROR_UNKNOWN, "lithos-vgpud is gone");
}

/* Size of the packet, 0 at the end of the connection, -1 for one that cannot be trusted. */
static ssize_t receive(union packet *p)
{
    ssize_t n;
    do {
        n = recv(vgpu.fd, p, sizeof *p, 0);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return 0;
    if ((size_t)n < sizeof p->h || p->h.magic != VGPU_WIRE_MAGIC || p->h.version != VGPU_WIRE_VERSION ||
        p->h.size != (size_t)n)
        return -1;
    return n;
}

static bool wait_readable(int fd, int timeout_ms)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    int n;
    do {
        n = poll(&pfd, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

static void dispatch(const union packet *p, size_t size)
{
    switch (p->h.type) {
    case VGPU_DONE:
        if (size >= sizeof p->done)
            vgpu_op_done(&p->done);
        break;
    case VGPU_PLACEMENT:
        if (size > offsetof(struct vgpu_placement, sm))
            vgpu_op_placed(&p->placement, size);
        break;
    case VGPU_FAULT:
        if (size >= sizeof p->fault)
            vgpu_fault_message(&p->fault);
        break;
    default:
        lithos_log_once(LITHOS_LOG_WARNING, "virtual GPU: message of unknown type %u from lithos-vgpud",
                        p->h.type);
    }
}

static void *reader(void *unused)
{
    (void)unused;
    static union packet p;
    for (;;) {
        struct pollfd fds[2] = {{.fd = vgpu.fd, .events = POLLIN}, {.fd = vgpu.mps_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (fds[1].revents) {
            /* The MPS server says nothing after it has let a client in: this is its end. */
            vgpu_lost(CUDA_ERROR_MPS_RPC_FAILURE, "the MPS server is gone");
            vgpu.mps_fd = -1;
        }
        if (!fds[0].revents)
            continue;
        ssize_t n = receive(&p);
        if (n <= 0) {
            vgpu_lost(CUDA_ERROR_UNKNOWN,
                      n ? "lithos-vgpud sent what is no message" : "lithos-vgpud is gone");
            break;
        }
        dispatch(&p, (size_t)n);
    }
    return NULL;
}

static int start_reader(void)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the app's signals are the app's threads' */
    pthread_t thread;
    int r = pthread_create(&thread, NULL, reader, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        pthread_detach(thread);
    return r;
}

static int connect_path(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path)
        return -ENAMETOOLONG;
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r;
    do {
        r = connect(fd, (struct sockaddr *)&addr, sizeof addr);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int env_int(const char *name, int least, int most, int otherwise)
{
    const char *text = getenv(name);
    char *end;
    long v = text ? strtol(text, &end, 10) : 0;
    return !text || !*text || *end || v < least || v > most ? otherwise : (int)v;
}

static void say_hello(void)
{
    struct vgpu_hello hello = {.mps = vgpu.mps, .mps_domain = vgpu.mps_domain};
    if (vgpu.mps) {
        hello.thread_percent = (uint32_t)env_int("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", 1, 100, 0);
        hello.priority = env_int("CUDA_MPS_CLIENT_PRIORITY", 0, 1, 0);
    }
    vgpu_msg_init(&hello.h, VGPU_HELLO, sizeof hello);
    vgpu_link_send(&hello, sizeof hello);
}

/* WELCOME and the cards. */
static bool handshake(void)
{
    static union packet p;
    say_hello();
    if (!wait_readable(vgpu.fd, HANDSHAKE_TIMEOUT_MS) || receive(&p) < (ssize_t)sizeof p.welcome ||
        p.h.type != VGPU_WELCOME || p.welcome.cards > VGPU_MAX_CARDS)
        return false;
    unsigned cards = p.welcome.cards;
    vgpu.scale = p.welcome.scale;
    vgpu.driver_version = p.welcome.driver_version;
    int percent = vgpu.mps ? env_int("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", 1, 100, 100) : 100;
    for (unsigned i = 0; i < cards; i++) {
        if (!wait_readable(vgpu.fd, HANDSHAKE_TIMEOUT_MS) || receive(&p) < (ssize_t)sizeof p.card ||
            p.h.type != VGPU_CARD || p.card.index != i || !p.card.sms_per_tpc ||
            p.card.sms_per_tpc > p.card.sm_count ||
            p.card.sm_count != lithos_tpcset_count(&p.card.tpcs) * p.card.sms_per_tpc)
            return false;
        vgpu.devices[i].card = p.card;
        vgpu.devices[i].card.name[VGPU_NAME_BYTES - 1] = 0;
        /* A whole number of TPCs, as MPS rounds. */
        int per_tpc = (int)p.card.sms_per_tpc, tpcs = (int)lithos_tpcset_count(&p.card.tpcs);
        vgpu.devices[i].sm_count =
            percent == 100 ? (int)p.card.sm_count : per_tpc * LITHOS_MAX(1, (tpcs * percent + 99) / 100);
    }
    vgpu.device_count = cards;
    return true;
}

CUresult vgpu_link_open(const char *path)
{
    CUresult mps = vgpu_mps_connect(&vgpu.mps_fd, &vgpu.mps_domain);
    if (mps)
        return mps;
    vgpu.mps = vgpu.mps_fd >= 0;
    vgpu.fd = connect_path(path);
    CUresult r = CUDA_ERROR_NO_DEVICE;
    if (vgpu.fd < 0)
        lithos_error("virtual GPU: cannot connect to lithos-vgpud at %s (LITHOS_VGPU_SOCKET): %s", path,
                     strerror(-vgpu.fd));
    else if (!handshake())
        lithos_error("virtual GPU: %s does not answer as lithos-vgpud does", path);
    else
        r = start_reader() ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    if (r && vgpu.fd >= 0)
        close(vgpu.fd);
    if (r && vgpu.mps_fd >= 0)
        close(vgpu.mps_fd);
    return r;
}
