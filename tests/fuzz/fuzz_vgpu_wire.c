/* A client of lithos-vgpud that sends anything, in any order: cut off or served, never the end of the server. The input
 * is a row of messages, each behind its length in two bytes; where the top bit of the length is set, the header's magic,
 * version and size are set right, so that the mutations get past the first check. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "fuzz/fuzz.h"
#include "vgpu/server/server.h"

#define STEP_NS (100 * LITHOS_NSEC_PER_USEC)

static uint64_t card_now_ns;

uint64_t server_card_ns(const struct server *sv)
{
    (void)sv;
    return card_now_ns;
}

void server_touch(struct server *sv, unsigned card)
{
    sv->cards[card].deadline_ns = 0;
}

static const struct lithos_card card_data = {
    .name = "fuzz",
    .cc_major = 9,
    .qmd = LITHOS_QMD_V04_00,
    .topology = {.valid = {{0xfull | 0xffull << 9, 1}}, .sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 7},
    .priority_greatest = -5,
    .sm_threads = 2048,
    .sm_blocks = 32,
    .sm_registers = 65536,
    .sm_shared_bytes = 233472,
    .block_shared_reserved_bytes = 1024,
    .warp_register_unit = 256,
    .largest_cluster_blocks = 16,
    .launch_ns = 5000,
    .complete_ns = 1500,
    .slice_ns = 2048000,
    .preempt_ns = 90000,
    .restore_ns = 90000,
    .copy_bytes_per_us = {50000, 50000, 50000},
    .power = {.max_mhz = 1980,
              .min_mhz = 345,
              .step_mhz = 15,
              .switch_us = 100,
              .board_mw = 45000,
              .sms_mw = 380000,
              .volt_count = 1,
              .volts = {{1980, 1050}}},
};

static size_t put(uint8_t *buf, size_t at, void *msg, uint16_t type, size_t size)
{
    *(struct vgpu_msg_header *)msg =
        (struct vgpu_msg_header){VGPU_WIRE_MAGIC, VGPU_WIRE_VERSION, type, (uint32_t)size, 0};
    buf[at] = (uint8_t)size;
    buf[at + 1] = (uint8_t)(size >> 8 | 0x80);
    memcpy(buf + at + 2, msg, size);
    return at + 2 + size;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    if (n >= 3 || size < 8192)
        return 0;
    struct vgpu_hello hello = {.mps = n == 1, .mps_domain = 3, .thread_percent = 50};
    struct vgpu_ctx ctx = {.ctx = 1}, ctx2 = {.ctx = 2, .card = 1};
    struct vgpu_stream s = {.stream = 1, .ctx = 1}, s2 = {.stream = 2, .ctx = 2};
    struct vgpu_slice slice = {.ctx = 1, .us = 1};
    struct vgpu_mark mark = {.op = 2, .stream = 1};
    struct vgpu_wait wait = {.stream = 2, .mark = 2};
    struct vgpu_copy copy = {.op = 3, .stream = 2, .bytes = 4096};
    struct vgpu_query lock = {.what = VGPU_QUERY_LOCK, .min_mhz = 345, .max_mhz = 1000},
                      look = {.card = 1, .what = VGPU_QUERY_STATE}, reset = {.what = VGPU_QUERY_RESET};
    struct vgpu_launch launch = {.op = 1, .stream = 1, .flags = 1, .param_count = 1, .kernel = "k"};
    struct lithos_qmd_view v = {.type = n == 2 ? LITHOS_QMD_TYPE_CLUSTERS : LITHOS_QMD_TYPE_GRID,
                                .grid = {30, 2, 1},
                                .block = {128, 1, 1},
                                .cluster = {n == 2 ? 4 : 1, 1, 1},
                                .registers = 16,
                                .masked = n == 1,
                                .tpcs = {{0xf00, 0}}};
    lithos_assert(lithos_qmd_encode(lithos_qmd_layout(LITHOS_QMD_V04_00), &v, launch.qmd) == 0);
    size_t at = put(buf, 0, &hello, VGPU_HELLO, sizeof hello);
    at = put(buf, at, &ctx, VGPU_CTX_CREATE, sizeof ctx);
    at = put(buf, at, &ctx2, VGPU_CTX_CREATE, sizeof ctx2);
    at = put(buf, at, &s, VGPU_STREAM_CREATE, sizeof s);
    at = put(buf, at, &s2, VGPU_STREAM_CREATE, sizeof s2);
    at = put(buf, at, &slice, VGPU_CTX_SLICE, sizeof slice);
    at = put(buf, at, &lock, VGPU_QUERY, sizeof lock);
    at = put(buf, at, &launch, VGPU_LAUNCH, sizeof launch);
    at = put(buf, at, &mark, VGPU_MARK, sizeof mark);
    at = put(buf, at, &wait, VGPU_WAIT, sizeof wait);
    at = put(buf, at, &copy, VGPU_COPY, sizeof copy);
    at = put(buf, at, &look, VGPU_QUERY, sizeof look);
    at = put(buf, at, &reset, VGPU_QUERY, sizeof reset);
    if (n == 0)
        at = put(buf, at, &s, VGPU_STREAM_DESTROY, sizeof s);
    if (n == 2)
        at = put(buf, at, &ctx, VGPU_CTX_DESTROY, sizeof ctx);
    return at;
}

static void run_cards(struct server *sv)
{
    for (unsigned i = 0; i < sv->card_count; i++) {
        struct lithos_model_event e;
        power_step(sv, i);
        while (lithos_model_advance(sv->cards[i].model, card_now_ns, &e, 1))
            work_event(i, &e);
        (void)lithos_model_quiet_until_ns(sv->cards[i].model);
    }
}

static void drain(int fd)
{
    static char buf[8192];
    while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
        ;
}

/* One message of the input: what came of it as the server would see it. */
static void feed(struct client *c, const uint8_t *data, size_t size, bool mend)
{
    union vgpu_client_msg m;
    const char *why;
    memset(&m, 0xa5, sizeof m);
    memcpy(&m, data, LITHOS_MIN(size, sizeof m));
    if (mend && size >= sizeof m.h) {
        m.h.magic = VGPU_WIRE_MAGIC;
        m.h.version = VGPU_WIRE_VERSION;
        m.h.size = (uint32_t)size;
    }
    if (size > sizeof m || vgpu_check_client_msg(&m, size, &why) < 0)
        return; /* the server would cut it off; here the next message has its chance */
    (void)work_message(c, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct server sv; /* large */
    int fds[2];
    lithos_log_set_threshold(LITHOS_LOG_ERROR);
    memset(&sv, 0, sizeof sv);
    sv.scale = 1;
    card_now_ns = 0;
    lithos_assert(lithos_costs_create(&sv.costs) == 0);
    for (; sv.card_count < 2; sv.card_count++) {
        sv.cards[sv.card_count].data = card_data;
        power_init(&sv.cards[sv.card_count]);
        lithos_assert(lithos_model_create(&card_data, 1, &sv.cards[sv.card_count].model) == 0);
    }
    sv.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    lithos_assert(sv.epoll_fd >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    struct client *c = calloc(1, sizeof *c);
    lithos_assert(c);
    *c = (struct client){.server = &sv, .fd = fds[0], .serial = 1, .events = EPOLLIN};
    c->unread_end = &c->unread;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    lithos_assert(epoll_ctl(sv.epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) == 0);
    sv.clients = c;
    for (size_t at = 0; at + 2 <= size;) {
        size_t len = data[at] | (size_t)data[at + 1] << 8;
        bool mend = len & 0x8000;
        at += 2;
        len = LITHOS_MIN(len & 0x7fff, size - at);
        feed(c, data + at, len, mend);
        at += len;
        card_now_ns += STEP_NS;
        run_cards(&sv);
        client_writable(c);
        drain(fds[1]);
    }
    c->gone = true;
    client_reap(&sv);
    free(sv.past);
    close(fds[1]);
    close(sv.epoll_fd);
    for (unsigned i = 0; i < sv.card_count; i++)
        lithos_model_destroy(sv.cards[i].model);
    lithos_costs_free(sv.costs);
    return 0;
}
