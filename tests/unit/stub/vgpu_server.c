#include "unit/stub/vgpu_server.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

#define SMS 132

union message {
    struct vgpu_msg_header h;
    struct vgpu_hello hello;
    struct vgpu_launch launch;
    struct vgpu_copy copy;
    struct vgpu_mark mark;
};

static void say(struct fake_server *s, void *msg, uint16_t type, size_t size)
{
    *(struct vgpu_msg_header *)msg = (struct vgpu_msg_header){
        .magic = VGPU_WIRE_MAGIC, .version = VGPU_WIRE_VERSION, .type = type, .size = (uint32_t)size};
    ssize_t n = send(s->client, msg, size, MSG_NOSIGNAL);
    (void)n;
}

static void welcome(struct fake_server *s, const struct vgpu_hello *hello)
{
    s->hello = *hello;
    struct vgpu_welcome w = {.cards = 2, .driver_version = 13000, .scale = 1};
    say(s, &w, VGPU_WELCOME, sizeof w);
    for (uint32_t i = 0; i < w.cards; i++) {
        struct vgpu_card c = {.index = i,
                              .sm_count = SMS,
                              .total_mem = 150109880320ull,
                              .cc_major = 9,
                              .priority_greatest = -5,
                              .tpcs = {{UINT64_MAX, 3}}, /* 66 TPCs */
                              .sms_per_tpc = 2};
        snprintf(c.name, sizeof c.name, "NVIDIA H200");
        memset(c.uuid, 0x10 + (int)i, sizeof c.uuid);
        static const int values[][2] = {{1, 1024},       {2, 1024},    {3, 1024},  {4, 64},
                                        {5, 2147483647}, {6, 65535},   {7, 65535}, {8, 49152},
                                        {10, 32},        {16, SMS},    {39, 2048}, {81, 233472},
                                        {82, 65536},     {97, 232448}, {106, 32},  {111, 1024}};
        for (size_t v = 0; v < LITHOS_ARRAY_SIZE(values); v++)
            c.attributes[values[v][0]] = values[v][1];
        say(s, &c, VGPU_CARD, sizeof c);
    }
}

static uint64_t clock_ns = 5000000;

static void done(struct fake_server *s, uint64_t op, uint64_t blocks)
{
    clock_ns += 1000;
    struct vgpu_done d = {.op = op, .start_ns = clock_ns - 1000, .end_ns = clock_ns, .blocks = blocks};
    say(s, &d, VGPU_DONE, sizeof d);
}

static void launch(struct fake_server *s, const struct vgpu_launch *m, uint64_t ctx)
{
    s->last = *m;
    if (s->on_launch)
        s->on_launch(m);
    int result = atomic_exchange(&s->fault, 0);
    if (result) {
        struct vgpu_fault f = {.ctx = ctx, .op = m->op, .result = result, .text = "as the test asked"};
        say(s, &f, VGPU_FAULT, sizeof f);
        return;
    }
    struct lithos_qmd_view v;
    lithos_qmd_decode(lithos_qmd_layout(LITHOS_QMD_V04_00), m->qmd, &v);
    uint64_t blocks = (uint64_t)v.grid[0] * v.grid[1] * v.grid[2];
    if (v.type == LITHOS_QMD_TYPE_CLUSTERS)
        blocks *= (uint64_t)v.cluster[0] * v.cluster[1] * v.cluster[2];
    blocks -= m->exits;
    uint16_t allowed[SMS];
    unsigned n = 0;
    for (unsigned sm = 0; sm < SMS; sm++)
        if (!v.masked || lithos_tpcset_has(&v.tpcs, sm / 2))
            allowed[n++] = (uint16_t)sm;
    if (!n)
        return; /* hangs, as on a card */
    if (s->skip_upper)
        blocks /= 2;
    for (uint64_t first = 0; first < blocks && (m->flags & VGPU_LAUNCH_WANT_PLACEMENT);
         first += VGPU_PLACEMENTS) {
        struct vgpu_placement p = {.op = m->op, .first_block = first};
        p.count = (uint32_t)LITHOS_MIN(blocks - first, VGPU_PLACEMENTS);
        for (uint32_t i = 0; i < p.count; i++)
            p.sm[i] = allowed[(first + i) % n];
        say(s, &p, VGPU_PLACEMENT, sizeof p);
    }
    done(s, m->op, blocks);
}

static void *serve(void *arg)
{
    struct fake_server *s = arg;
    uint64_t ctx = 0;
    s->client = accept(s->listener, NULL, NULL);
    static union message m;
    while (recv(s->client, &m, sizeof m, 0) > 0) {
        while (s->hold && m.h.type != VGPU_HELLO)
            usleep(1000);
        switch (m.h.type) {
        case VGPU_HELLO:
            welcome(s, &m.hello);
            break;
        case VGPU_CTX_CREATE:
            ctx = ((struct vgpu_ctx *)&m)->ctx;
            break;
        case VGPU_LAUNCH:
            launch(s, &m.launch, ctx);
            break;
        case VGPU_COPY:
            done(s, m.copy.op, 0);
            break;
        case VGPU_MARK:
            done(s, m.mark.op, 0);
            break;
        default:
            break; /* all before it is over: nothing to wait for */
        }
        s->messages[LITHOS_MIN(m.h.type, VGPU_MSG_TYPE_MAX - 1)]++;
    }
    return NULL;
}

void fake_server_start(struct fake_server *s)
{
    memset(s, 0, sizeof *s);
    s->client = -1;
    strcpy(s->dir, "/tmp/vgpu_test_XXXXXX");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    pthread_t thread;
    if (!mkdtemp(s->dir))
        exit(3);
    snprintf(s->path, sizeof s->path, "%s/socket", s->dir);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", s->path);
    if (bind(s->listener, (struct sockaddr *)&addr, sizeof addr) || listen(s->listener, 1) ||
        pthread_create(&thread, NULL, serve, s))
        exit(3);
    pthread_detach(thread);
    setenv("LITHOS_VGPU_SOCKET", s->path, 1);
}

void fake_server_die(struct fake_server *s)
{
    shutdown(s->client, SHUT_RDWR);
}
