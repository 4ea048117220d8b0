/* lithosd as a test plays it, and a tenant over the stub driver that attaches to it. For one test file each. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "cards.h"
#include "cuda/cuda_abi.h"
#include "proto/arena.h"
#include "proto/message.h"
#include "proto/socket.h"
#include "stub/in_child.h"
#include "tenant/attach.h"

#define TENANT 0x42u

typedef CUresult (*init_fn)(unsigned);
typedef CUresult (*launch_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                              unsigned, CUstream, void **, void **);

/* ---- the daemon ---- */

enum manner {
    GOOD,
    SILENT,       /* takes the connection and never answers */
    REFUSING,     /* answers with an error */
    DAMAGED,      /* answers with rubbish */
    BAD_MAGIC,    /* an arena that is none */
    OTHER_TENANT, /* somebody else's arena */
    UNSEALED,     /* one that could shrink */
    TORN,         /* dead in the middle of writing the grant */
};

static struct fake {
    char path[64];
    int listener;
    _Atomic int sock; /* the daemon's end of the last connection, -1 before */
    enum manner manner;
    struct lithos_arena *arena;
    struct lithos_grant grant;
    uint32_t observe; /* LITHOS_OBSERVE_* of the arenas to come */
    struct lithos_msg_attach asked;
    _Atomic int attached;
    pthread_t thread;
} fake = {.listener = -1, .sock = -1};

static inline struct lithos_grant grant_of(const char *own)
{
    struct lithos_grant grant = {.epoch = 1, .gpu_count = 1};
    memset(grant.gpus[0].uuid, 0xa0, LITHOS_UUID_BYTES);
    grant.gpus[0].topology = card_h200();
    CHECK_EQ(lithos_tpcset_parse(own, &grant.gpus[0].own), 0);
    return grant;
}

static inline int make_arena(void)
{
    int fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)LITHOS_ARENA_BYTES) == 0);
    if (fake.manner != UNSEALED)
        CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    fake.arena = mmap(NULL, LITHOS_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(fake.arena != MAP_FAILED);
    fake.arena->magic = fake.manner == BAD_MAGIC ? 1 : LITHOS_ARENA_MAGIC;
    fake.arena->version = LITHOS_ARENA_VERSION;
    fake.arena->size = LITHOS_ARENA_BYTES;
    fake.arena->tenant = fake.manner == OTHER_TENANT ? TENANT + 1 : TENANT;
    atomic_store(&fake.arena->observe, fake.observe);
    lithos_arena_publish(fake.arena, &fake.grant);
    if (fake.manner == TORN)
        atomic_fetch_add(&fake.arena->grant_seq, 1);
    return fd;
}

static inline void answer(int sock)
{
    union lithos_message m;
    if (lithos_socket_receive(sock, &m, NULL, LITHOS_NSEC_PER_SEC) < 0 || m.h.type != LITHOS_MSG_ATTACH)
        return;
    fake.asked = m.attach;
    if (fake.manner == SILENT)
        return;
    if (fake.manner == DAMAGED) {
        send(sock, "rubbish", 7, MSG_NOSIGNAL);
        return;
    }
    if (fake.manner == REFUSING) {
        lithos_message_init(&m, LITHOS_MSG_ERROR);
        m.error.error = -EPERM;
        snprintf(m.error.text, sizeof m.error.text, "no such tenant here");
        lithos_socket_send(sock, &m, -1, LITHOS_NSEC_PER_SEC);
        return;
    }
    lithos_message_init(&m, LITHOS_MSG_ATTACHED);
    m.attached.tenant = TENANT;
    m.attached.arena_bytes = LITHOS_ARENA_BYTES;
    int fd = make_arena();
    atomic_fetch_add(&fake.attached, 1); /* before who is answered goes on */
    CHECK_EQ(lithos_socket_send(sock, &m, fd, LITHOS_NSEC_PER_SEC), 0);
    close(fd);
}

static inline void *serve(void *unused)
{
    for (;;) {
        int sock = accept4(fake.listener, NULL, NULL, SOCK_CLOEXEC);
        if (sock < 0)
            return unused;
        answer(sock);
        if (fake.sock >= 0)
            close(fake.sock);
        fake.sock = sock;
    }
}

static inline void daemon_starts(enum manner manner, const char *own)
{
    fake.manner = manner;
    fake.grant = grant_of(own);
    fake.sock = -1;
    atomic_store(&fake.attached, 0);
    snprintf(fake.path, sizeof fake.path, "/tmp/lithos-test-%d.sock", getpid());
    unlink(fake.path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, fake.path);
    fake.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(fake.listener >= 0 && bind(fake.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
          listen(fake.listener, 16) == 0);
    CHECK(!pthread_create(&fake.thread, NULL, serve, NULL));
    setenv("LITHOS_SOCKET", fake.path, 1);
}

static inline void daemon_dies(void)
{
    shutdown(fake.listener, SHUT_RDWR);
    pthread_join(fake.thread, NULL);
    close(fake.listener);
    unlink(fake.path);
    if (fake.sock >= 0)
        close(fake.sock);
}

/* ---- the tenant ---- */

static const struct lithos_arena *home;

static inline void tenant_starts(void)
{
    uint8_t token[LITHOS_TOKEN_BYTES];
    char text[LITHOS_TENANT_TEXT_MAX];
    memset(token, 7, sizeof token);
    setenv("LITHOS_TENANT", lithos_tenant_format(TENANT, token, text), 1);
    load_stub();
    lithos_tpcset_parse(H200_VALID, &stub->valid);
    home = ((const struct lithos_library *)OURS("lithos_library_marker"))->arena;
    uint64_t start = lithos_now_ns();
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK(lithos_now_ns() - start < 1500 * LITHOS_NSEC_PER_MSEC); /* bounded, whatever the daemon does */
}

static inline void launch(void)
{
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))((CUfunction)0x20, 8, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
             0);
}

static inline int masked_with(const char *text)
{
    struct lithos_tpcset set;
    lithos_tpcset_parse(text, &set);
    return stub->last_masked && lithos_tpcset_equal(&set, &stub->last_tpcs);
}

static inline void wait_for_attach(void)
{
    for (int i = 0; i < 400 && !atomic_load(&fake.attached); i++)
        usleep(10000);
    CHECK(atomic_load(&fake.attached));
    usleep(20000); /* the library maps what it got */
}
