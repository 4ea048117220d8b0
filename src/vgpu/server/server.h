/* lithos-vgpud: owns the virtual cards and their time. One thread; every wait has an end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/util.h"
#include "model/cost.h"
#include "model/model.h"
#include "vgpu/server/check.h"
#include "vgpu/server/idmap.h"

/* Ops of a client that are not done; with more it is not read from until half are, as a card's queue fills up. */
#define CLIENT_OPS_MAX 4096u
/* Bytes waiting for a client that does not read; with more it is cut off. */
#define CLIENT_UNREAD_MAX (64u << 20)

/* What one process did to one card, kept after it has gone. */
struct usage {
    struct lithos_model_stats stats; /* of contexts that are gone */
    uint64_t faults, blocks_missed, blocks_twice;
    uint64_t atoms, exits; /* launches of part of a grid; blocks that ended in their prelude */
};

struct context {
    struct context *next;
    struct client *client;
    uint64_t id;
    unsigned card;
    uint32_t open_ops;                /* not done */
    struct lithos_model_context *ctx; /* NULL: lost to a fault; ops for it are dropped */
};

struct stream {
    struct stream *next;
    struct context *context;
    uint64_t id;
    struct lithos_model_stream *s;
};

struct mark {
    struct mark *next; /* of the client */
    struct context *context;
    uint64_t id;
    unsigned waiting_cards; /* bit a card: streams there wait at a gate */
};

struct message {
    struct message *next;
    size_t len;
    unsigned char bytes[];
};

struct client {
    struct client *next;
    struct server *server;
    int fd;
    pid_t pid;
    uid_t uid;
    uint64_t serial; /* owner number in the models */
    char program[64];
    bool greeted, gone, paused;
    uint32_t events; /* epoll: what is asked for */
    struct vgpu_hello hello;
    struct idmap ctx_ids, stream_ids, mark_ids;
    struct context *contexts;
    struct stream *streams;
    struct mark *marks;
    uint32_t open_ops;
    struct message *unread, **unread_end;
    size_t unread_bytes;
    uint64_t started_ns, ended_ns; /* card time */
    struct usage usage[VGPU_MAX_CARDS];
};

struct card_power {
    uint32_t mhz, asked_mhz; /* in force, and from switch_ns on */
    uint64_t switch_ns;
    bool locked;
    uint64_t locks;                     /* how often */
    uint64_t at_ns, busy_ns, memory_ns; /* accounted for */
    double energy_uj;
    uint64_t power_at_ns; /* power_mw is the mean up to then */
    double power_uj;
    uint32_t power_mw;
};

/* Who may lock clocks: with NVIDIA's driver, root alone. */
enum clock_rights { CLOCKS_ROOT, CLOCKS_ANYBODY, CLOCKS_NOBODY };

struct card {
    struct lithos_card data;
    struct lithos_model *model;
    uint8_t uuid[16];
    struct card_power power;
    uint64_t deadline_ns; /* card time of the next look; NEVER when none is needed */
};

struct server {
    double scale;
    uint64_t start_real_ns;
    unsigned card_count;
    struct card cards[VGPU_MAX_CARDS];
    struct lithos_costs *costs;
    enum clock_rights clock_rights;
    const char *stats_path; /* NULL: none */
    char socket_path[108];
    int listen_fd, epoll_fd, timer_fd, signal_fd;
    uint64_t armed_real_ns;
    uint64_t serial;
    struct client *clients; /* connected */
    struct client *past;    /* gone, the last first: for the report */
    unsigned past_count;
    pid_t child; /* of "-- cmd", 0 when none */
    bool ended;
    int exit_code;
};

/* server.c */
uint64_t server_card_ns(const struct server *sv);
int server_open(struct server *sv, const char *path);
int server_loop(struct server *sv); /* till it is told to end */
void server_close(struct server *sv);
void server_touch(struct server *sv,
                  unsigned card);      /* something was sent to it: look when it wants to be looked at */
void server_report(struct server *sv); /* writes the report where one is asked for; says what went wrong */

/* client.c: connections */
void client_accept(struct server *sv);
void client_readable(struct client *c);
void client_writable(struct client *c);
void client_send(struct client *c, void *msg, uint16_t type, size_t size); /* fills the header */
void LITHOS_PRINTF(2, 3) client_cut(struct client *c, const char *fmt, ...);
void client_reap(struct server *sv); /* those that are gone: their work leaves the cards */
void client_ops_done(struct client *c, unsigned count);

/* work.c: what they ask for */
const char *work_message(struct client *c, const union vgpu_client_msg *m); /* NULL, or why it is wrong */
void work_event(unsigned card, struct lithos_model_event *e);
void work_drop(struct client *c);

/* Sum of what is gone and what lives. */
void work_usage(const struct client *c, unsigned card, struct lithos_model_stats *ret_stats);

/* power.c: clocks, power and energy */
void power_init(struct card *card);
uint64_t
power_next_ns(const struct card *card); /* card time when a clock asked for comes; NEVER: none does */
void power_step(struct server *sv, unsigned card);
const char *power_query(struct client *c, const struct vgpu_query *q); /* NULL, or why it is wrong */

/* report.c */
char *report_text(const struct server *sv); /* JSON; free it */

/* child.c */
int child_start(struct server *sv, char **argv); /* 0, or the exit code that says why not */
void child_signal(struct server *sv, int signo);
bool child_reap(struct server *sv); /* true: the command has ended, exit_code is set */
