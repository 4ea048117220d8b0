/* A library that calls ioctl() as a driver does: as a function, and through a table that the loader fills. */
#include <sys/ioctl.h>

__attribute__((visibility("default"))) int stub_call(int fd, unsigned long request, void *arg);
__attribute__((visibility("default"))) int stub_call_by_table(int fd, unsigned long request, void *arg);

int stub_call(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, request, arg);
}

static int (*const volatile table[])(int, unsigned long, ...) = {ioctl};

int stub_call_by_table(int fd, unsigned long request, void *arg)
{
    return table[0](fd, request, arg);
}
