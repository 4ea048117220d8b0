/* Runs a fuzz target without libFuzzer: its seeds as they are, then mutations of them, a fixed number of
 * times, the same ones every time for the same seed number. So `make test` fuzzes with nothing but a C
 * compiler.
 *
 * NAME [FILE...]: with files, runs just those (an input that a run before wrote, or one of libFuzzer's).
 * LITHOS_FUZZ_RUNS (20000), LITHOS_FUZZ_SEED (1), LITHOS_FUZZ_SECONDS (20, then it stops early and says so),
 * LITHOS_FUZZ_DIR (where an input that crashes is written; the current folder). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/util.h"
#include "fuzz/fuzz.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
void __sanitizer_set_death_callback(void (*callback)(void));
#else
#define SANITIZED 0
#endif

#define INPUT_MAX (256u << 10)
#define SEEDS_MAX 256u
/* One input that takes longer than this hangs. */
#define INPUT_SECONDS 20u

struct input {
    uint8_t *data;
    size_t size;
};

static struct input seeds[SEEDS_MAX];
static size_t seed_count;
static uint64_t random_state;
/* What runs now, for the crash handler. */
static struct input current;
static char crash_path[512];
static const char *program;

static uint64_t next_random(void)
{
    /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1dull;
}

static size_t below(size_t n)
{
    return n ? (size_t)(next_random() >> 11) % n : 0;
}

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

/* Async-signal-safe: called from the signal handler and from a sanitizer on its way out. */
static void save_crash(void)
{
    if (!current.data)
        return;
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool saved = fd >= 0 && write(fd, current.data, current.size) == (ssize_t)current.size;
    if (fd >= 0)
        close(fd);
    say(saved ? "\nfuzz: the input that did it was written; to see it again: "
              : "\nfuzz: could not write the input: ");
    say(program);
    say(" ");
    say(crash_path);
    say("\n");
    current.data = NULL;
}

static void on_signal(int sig)
{
    say(sig == SIGALRM ? "fuzz: an input hangs" : "fuzz: a signal ended the target");
    save_crash();
    signal(sig == SIGALRM ? SIGABRT : sig, SIG_DFL);
    raise(sig == SIGALRM ? SIGABRT : sig);
}

static void catch_crashes(void)
{
    static uint8_t stack[64 << 10];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaction(SIGABRT, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
#if SANITIZED
    __sanitizer_set_death_callback(save_crash);
#else
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
#endif
}

#if !SANITIZED
/* The bytes end where an unmapped page begins (but for alignment to 16, as malloc gives), so that reading
 * past the end is caught without a sanitizer as well. */
static uint8_t *place(const uint8_t *data, size_t size)
{
    static uint8_t *area;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!area) {
        area = mmap(NULL, INPUT_MAX + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED || mprotect(area + INPUT_MAX, page, PROT_NONE) != 0) {
            perror("fuzz: mmap");
            exit(2);
        }
    }
    uint8_t *at = (uint8_t *)((uintptr_t)(area + INPUT_MAX - size) & ~(uintptr_t)15);
    memcpy(at, data, size);
    return at;
}
#endif

static void run_one(const uint8_t *data, size_t size)
{
    uint8_t *copy = NULL;
#if SANITIZED
    copy = malloc(size ? size : 1);
    if (!copy) {
        perror("fuzz: malloc");
        exit(2);
    }
    memcpy(copy, data, size);
    current = (struct input){copy, size};
#else
    current = (struct input){place(data, size), size};
#endif
    LLVMFuzzerTestOneInput(current.data, size);
    current.data = NULL;
    free(copy);
}

static uint64_t extreme(void)
{
    static const uint64_t values[] = {0,         1,          2,          0x7f,       0x80,
                                      0xff,      0x100,      0x7fff,     0x8000,     0xffff,
                                      0x10000,   0x7fffffff, 0x80000000, 0xffffffff, 0x100000000ull,
                                      INT64_MAX, 1ull << 63, UINT64_MAX, 4095,       4096};
    return values[below(LITHOS_ARRAY_SIZE(values))] + (below(4) == 0 ? next_random() % 5 - 2 : 0);
}

static void mutate_integer(struct input *in)
{
    size_t width = (size_t)1 << below(4);
    if (in->size < width)
        return;
    size_t at = below(in->size - width + 1);
    if (below(4))
        at &= ~(width - 1); /* fields of structs are aligned */
    uint64_t value = extreme();
    if (below(3) == 0) { /* a step from what stands there */
        memcpy(&value, in->data + at, width);
        value += next_random() % 33 - 16;
    }
    memcpy(in->data + at, &value, width);
}

static void mutate_text(struct input *in)
{
    static const char *const tokens[] = {"-1",    "0",   "4294967296", "99999999999999999999",
                                         "1e309", "nan", ",",          "-",
                                         ":",     "%",   "\"",         "{",
                                         "}",     "[",   "]",          "\\",
                                         "%s",    "\xff"};
    const char *token = tokens[below(LITHOS_ARRAY_SIZE(tokens))];
    size_t len = strlen(token);
    if (in->size + len > INPUT_MAX)
        return;
    size_t at = below(in->size + 1);
    memmove(in->data + at + len, in->data + at, in->size - at);
    memcpy(in->data + at, token, len);
    in->size += len;
}

static void remove_range(struct input *in)
{
    if (!in->size)
        return;
    size_t at = below(in->size);
    size_t len = 1 + below(LITHOS_MIN(in->size - at, (size_t)64));
    len = LITHOS_MIN(len, in->size - at);
    memmove(in->data + at, in->data + at + len, in->size - at - len);
    in->size -= len;
}

static void duplicate_range(struct input *in)
{
    if (!in->size)
        return;
    size_t from = below(in->size), len = 1 + below(LITHOS_MIN(in->size - from, (size_t)64));
    len = LITHOS_MIN(len, in->size - from);
    if (in->size + len > INPUT_MAX)
        return;
    memmove(in->data + from + len, in->data + from, in->size - from);
    in->size += len;
}

/* Copy a piece of another seed over, or append its end. */
static void splice_seed(struct input *in)
{
    const struct input *other = &seeds[below(seed_count)];
    if (!seed_count || !other->size)
        return;
    size_t from = below(other->size), at = below(in->size + 1);
    size_t len = LITHOS_MIN(1 + below(other->size - from), INPUT_MAX - at);
    memcpy(in->data + at, other->data + from, len);
    in->size = LITHOS_MAX(in->size, at + len);
}

static void grow(struct input *in)
{
    size_t len = LITHOS_MIN(1 + below(128), INPUT_MAX - in->size);
    int fill = (int)(below(3) == 0 ? 0 : next_random() & 0xff);
    memset(in->data + in->size, fill, len);
    in->size += len;
}

static void mutate(struct input *in)
{
    for (size_t n = 1 + below(6); n > 0; n--) {
        switch (below(12)) {
        case 0:
            in->size = below(in->size + 1);
            break;
        case 1:
            remove_range(in);
            break;
        case 2:
            duplicate_range(in);
            break;
        case 3:
            splice_seed(in);
            break;
        case 4:
            grow(in);
            break;
        case 5:
            mutate_text(in);
            break;
        case 6:
        case 7:
            if (in->size)
                in->data[below(in->size)] ^= (uint8_t)(1u << below(8));
            break;
        case 8:
            if (in->size)
                in->data[below(in->size)] = (uint8_t)next_random();
            break;
        default:
            mutate_integer(in);
            break;
        }
    }
}

static void load_seeds(uint8_t *buf)
{
    while (seed_count < SEEDS_MAX) {
        size_t size = lithos_fuzz_seed(seed_count, buf, INPUT_MAX);
        if (size == 0)
            break;
        if (size > INPUT_MAX) {
            fprintf(stderr, "fuzz: seed %zu says it has %zu bytes, more than it was given room for\n",
                    seed_count, size);
            exit(2);
        }
        seeds[seed_count].data = malloc(size);
        if (!seeds[seed_count].data) {
            perror("fuzz: malloc");
            exit(2);
        }
        memcpy(seeds[seed_count].data, buf, size);
        seeds[seed_count++].size = size;
    }
}

static uint64_t number_from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    if (!text || !*text)
        return otherwise;
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || *end) {
        fprintf(stderr, "fuzz: %s=%s is not a number\n", name, text);
        exit(2);
    }
    return value;
}

static int run_files(int count, char **paths)
{
    for (int i = 0; i < count; i++) {
        char *text;
        size_t len;
        int r = lithos_read_file(paths[i], INPUT_MAX, &text, &len);
        if (r < 0) {
            fprintf(stderr, "fuzz: %s: %s\n", paths[i], strerror(-r));
            return 2;
        }
        snprintf(crash_path, sizeof(crash_path), "%s", paths[i]);
        run_one((uint8_t *)text, len);
        free(text);
    }
    printf("%s: %d inputs from files, none crashed\n", program, count);
    return 0;
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *dir = getenv("LITHOS_FUZZ_DIR");
    program = argv[0];
    uint64_t runs = number_from_env("LITHOS_FUZZ_RUNS", 20000);
    uint64_t seed = number_from_env("LITHOS_FUZZ_SEED", 1);
    uint64_t limit_ns = number_from_env("LITHOS_FUZZ_SECONDS", 20) * LITHOS_NSEC_PER_SEC;
    static uint8_t buf[INPUT_MAX];
    catch_crashes();
    if (argc > 1)
        return run_files(argc - 1, argv + 1);

    snprintf(crash_path, sizeof(crash_path), "%s/crash-%s-seed%llu", dir && *dir ? dir : ".",
             slash ? slash + 1 : argv[0], (unsigned long long)seed);
    load_seeds(buf);
    run_one(buf, 0);
    for (size_t i = 0; i < seed_count; i++)
        run_one(seeds[i].data, seeds[i].size);

    random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
    uint64_t start_ns = lithos_now_ns(), done = 0;
    struct input in = {buf, 0};
    for (; done < runs; done++) {
        if (done % 64 == 0) {
            if (lithos_now_ns() - start_ns > limit_ns)
                break;
            alarm(INPUT_SECONDS);
        }
        /* Mostly from a seed; now and then further on from the last mutation. */
        if (seed_count && below(4)) {
            const struct input *from = &seeds[below(seed_count)];
            memcpy(in.data, from->data, from->size);
            in.size = from->size;
        }
        mutate(&in);
        run_one(in.data, in.size);
    }
    alarm(0);
    printf("%s: %zu seeds and %llu mutations (seed %llu) in %.1f s, none crashed%s\n",
           slash ? slash + 1 : argv[0], seed_count, (unsigned long long)done, (unsigned long long)seed,
           (double)(lithos_now_ns() - start_ns) / 1e9,
           done < runs ? " (stopped early: LITHOS_FUZZ_SECONDS)" : "");
    for (size_t i = 0; i < seed_count; i++)
        free(seeds[i].data);
    return 0;
}
