/* lithos-awake: keeps processors from sleeping, for what is measured beside it, with threads that give way to everybody (SCHED_IDLE). On a
 * virtual machine of a busy host a program that has slept is slower (docs/hardware.md, "Hosts"). Prints "ready", and ends when
 * its input does. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *stay(void *unused)
{
    (void)unused;
    for (;;)
        __builtin_ia32_pause();
    return NULL;
}

/* On that processor, for what nobody else takes of it. 0, or an error as errno has them. */
static int start(int cpu)
{
    static const struct sched_param lowest;
    pthread_attr_t attributes;
    cpu_set_t set;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);

    if (error)
        return error;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    error = pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
    if (!error)
        error = pthread_create(&thread, &attributes, stay, NULL);
    if (!error)
        error = pthread_setschedparam(thread, SCHED_IDLE, &lowest);
    (void)pthread_attr_destroy(&attributes);
    return error;
}

int main(void)
{
    cpu_set_t mine;
    char ignored[64];

    if (sched_getaffinity(0, sizeof(mine), &mine)) {
        fprintf(stderr, "lithos-awake: processors: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mine))
            continue;
        const int error = start(cpu);
        if (error) {
            fprintf(stderr, "lithos-awake: processor %d: %s\n", cpu, strerror(error));
            return EXIT_FAILURE;
        }
    }
    puts("ready");
    fflush(stdout);
    while (TEMP_FAILURE_RETRY(read(STDIN_FILENO, ignored, sizeof(ignored))) > 0)
        ;
    return EXIT_SUCCESS;
}
