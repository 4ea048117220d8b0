#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "vgpu/server/server.h"

#define COSTS_MAX 16

struct options {
    const char *cards[VGPU_MAX_CARDS];
    unsigned card_count;
    const char *costs[COSTS_MAX];
    unsigned cost_count;
    const char *socket;
    const char *stats;
    double scale;
    enum clock_rights clock_rights;
    uint64_t seed;
    char **command; /* NULL: none */
};

static const char usage_text[] =
    "Usage: lithos-vgpud [OPTION]... [-- COMMAND [ARG]...]\n"
    "Virtual GPUs for programs that use the driver library libcuda.so.1 of LithOS. With a COMMAND, run it so "
    "that it\n"
    "finds them, and end with its exit code; without, serve until SIGTERM and print \"ready SOCKET\".\n"
    "\n"
    "  -c, --card=NAME|FILE   a card: h200, h100, a100 or a card file; once for each card, up to 8 (h200)\n"
    "  -s, --scale=N          real time a time of the card: 10 runs ten times slower (1)\n"
    "      --socket=PATH      the socket (one of its own in the runtime folder)\n"
    "      --cost=FILE        what blocks of kernels cost, over share/lithos/costs/default.json; may be "
    "repeated\n"
    "      --stats=FILE       write what each process did to the cards, at the end and on SIGUSR1, as JSON\n"
    "      --clock-rights=WHO who may lock the cards' clocks: root, anybody or nobody (root)\n"
    "      --seed=N           of what is left to chance (1)\n"
    "  -h, --help             this text\n"
    "\n"
    "LITHOS_LOG=error|warning|info|debug says how much is told on standard error.\n";

static int usage_error(const char *what, const char *value)
{
    lithos_error("%s: %s; see lithos-vgpud --help", what, value);
    return 2;
}

static int add_value(const char **list, unsigned *count, unsigned max, const char *value, const char *what)
{
    if (*count == max)
        return usage_error(what, "too many");
    list[(*count)++] = value;
    return 0;
}

static int parse_rights(const char *text, enum clock_rights *ret)
{
    static const char *const names[] = {"root", "anybody", "nobody"};

    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(names); i++) {
        if (!strcmp(text, names[i])) {
            *ret = (enum clock_rights)i;
            return 0;
        }
    }
    return usage_error("--clock-rights is not root, anybody or nobody", text);
}

/* 0, an exit code, or -1 for --help. */
static int parse_option(int opt, struct options *o)
{
    char *end;
    switch (opt) {
    case 'c':
        return add_value(o->cards, &o->card_count, VGPU_MAX_CARDS, optarg, "--card");
    case 's':
        errno = 0;
        o->scale = strtod(optarg, &end);
        if (errno || end == optarg || *end || !(o->scale >= 0.001 && o->scale <= 1e6))
            return usage_error("--scale is not a number from 0.001 to 1000000", optarg);
        return 0;
    case 'S':
        o->socket = optarg;
        return 0;
    case 'C':
        return add_value(o->costs, &o->cost_count, COSTS_MAX, optarg, "--cost");
    case 'T':
        o->stats = optarg;
        return 0;
    case 'e':
        errno = 0;
        o->seed = strtoull(optarg, &end, 0);
        if (errno || end == optarg || *end)
            return usage_error("--seed is not a whole number", optarg);
        return 0;
    case 'R':
        return parse_rights(optarg, &o->clock_rights);
    case 'h':
        fputs(usage_text, stdout);
        return -1;
    default:
        return 2;
    }
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"card", required_argument, NULL, 'c'},
        {"scale", required_argument, NULL, 's'},
        {"socket", required_argument, NULL, 'S'},
        {"cost", required_argument, NULL, 'C'},
        {"stats", required_argument, NULL, 'T'},
        {"seed", required_argument, NULL, 'e'},
        {"clock-rights", required_argument, NULL, 'R'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    *o = (struct options){.scale = 1, .seed = 1};
    for (int opt; (opt = getopt_long(argc, argv, "+c:s:h", longs, NULL)) != -1;) {
        int r = parse_option(opt, o);
        if (r)
            return r;
    }
    if (optind < argc) {
        if (strcmp(argv[optind - 1], "--") != 0)
            return usage_error("a command goes behind --", argv[optind]);
        o->command = argv + optind;
    }
    if (!o->card_count)
        o->cards[o->card_count++] = "h200";
    return 0;
}

/* A name is a file of share/lithos/KIND beside this program; what has a slash or ends in .json is a path. */
static int data_path(char *path, size_t size, const char *kind, const char *name)
{
    size_t len = strlen(name);
    if (strchr(name, '/') || (len > 5 && strcmp(name + len - 5, ".json") == 0))
        return (size_t)snprintf(path, size, "%s", name) < size ? 0 : -ENAMETOOLONG;
    char here[2048];
    int r = lithos_program_dir(here, sizeof here);
    if (r < 0)
        return r;
    int n = snprintf(path, size, "%s/../../share/lithos/%s/%s.json", here, kind, name);
    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static void make_uuid(uint8_t uuid[16], const char *name, unsigned index)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
    static const uint8_t tag[8] = {'L', 'i', 't', 'h', 'V', 'G', 'P', 'U'};
    memcpy(uuid, tag, sizeof tag);
    for (unsigned i = 0; i < 7; i++)
        uuid[8 + i] = (uint8_t)(h >> (8 * i));
    uuid[15] = (uint8_t)index;
}

static int load_card(struct server *sv, const char *name, uint64_t seed)
{
    char path[4096], error[LITHOS_MODEL_ERROR_BYTES] = "";
    struct card *card = &sv->cards[sv->card_count];
    int r = data_path(path, sizeof path, "cards", name);
    if (r == 0)
        r = lithos_card_load(path, &card->data, error);
    if (r < 0) {
        lithos_error("card %s (%s): %s", name, path, *error ? error : strerror(-r));
        return r;
    }
    r = lithos_model_create(&card->data, seed + sv->card_count, &card->model);
    if (r < 0) {
        lithos_error("card %s: %s", name, strerror(-r));
        return r;
    }
    power_init(card);
    make_uuid(card->uuid, card->data.name, sv->card_count);
    sv->card_count++;
    return 0;
}

static int load_costs(struct server *sv, const char *name)
{
    char path[4096], error[LITHOS_MODEL_ERROR_BYTES] = "";
    int r = data_path(path, sizeof path, "costs", name);
    if (r == 0)
        r = lithos_costs_merge_file(sv->costs, path, error);
    if (r < 0)
        lithos_error("costs %s: %s", path, *error ? error : strerror(-r));
    return r;
}

static int load(struct server *sv, const struct options *o)
{
    int r = lithos_costs_create(&sv->costs);
    if (r == 0)
        r = load_costs(sv, "default");
    for (unsigned i = 0; i < o->cost_count && r == 0; i++)
        r = load_costs(sv, o->costs[i]);
    for (unsigned i = 0; i < o->card_count && r == 0; i++)
        r = load_card(sv, o->cards[i], o->seed);
    return r;
}

static int own_socket_path(char *path, size_t size, const char *given)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR"), *tmp = getenv("TMPDIR");
    const char *folder = runtime && *runtime ? runtime : tmp && *tmp ? tmp : "/tmp";
    int n = given ? snprintf(path, size, "%s", given)
                  : snprintf(path, size, "%s/lithos-vgpu-%d.sock", folder, (int)getpid());
    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int serve(struct server *sv, const struct options *o)
{
    char path[108];
    int r = own_socket_path(path, sizeof path, o->socket);
    if (r == 0)
        r = server_open(sv, path);
    if (r < 0) {
        lithos_error("the socket %s cannot be opened: %s", o->socket ? o->socket : "of the server",
                     r == -EADDRINUSE ? "another server listens there" : strerror(-r));
        return 1;
    }
    if (o->command) {
        r = child_start(sv, o->command);
        if (r)
            return r;
    } else {
        printf("ready %s\n", path);
        fflush(stdout);
    }
    r = server_loop(sv);
    if (r < 0) {
        lithos_error("the server fails: %s", strerror(-r));
        return 1;
    }
    return sv->exit_code;
}

int main(int argc, char **argv)
{
    static struct server sv;
    struct options o;
    lithos_log_set_name("lithos-vgpud");
    int r = parse(argc, argv, &o);
    if (r)
        return r < 0 ? 0 : r;
    sv.scale = o.scale;
    sv.clock_rights = o.clock_rights;
    sv.stats_path = o.stats;
    sv.listen_fd = sv.epoll_fd = sv.timer_fd = sv.signal_fd = -1;
    r = load(&sv, &o) < 0 ? 1 : serve(&sv, &o);
    server_close(&sv);
    return r;
}
