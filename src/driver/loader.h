/* The real CUDA driver: found by path, never by name (by name one would find liblithos itself). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define LITHOS_DRIVER_PATH_MAX 4096u

/* Handle of the real driver, opened at the first call by any thread; NULL when there is none. Looked for in
 * $LITHOS_LIBCUDA, then /etc/ld.so.cache, then the usual places. A NULL is for good: nothing is tried twice.
 */
void *lithos_driver_handle(void);
/* A function of the real driver by its exported name, NULL when it has none. Opens the driver. */
void *lithos_driver_symbol(const char *name);
/* Use the driver that something else has put into this process, if there is one, rather than look for it: for
 * a library that the driver itself loaded (CUDA_INJECTION64_PATH). Only before the first
 * lithos_driver_handle. */
void lithos_driver_prefer_loaded(void);
/* Path it was opened from, resolved; "" when there is none. */
const char *lithos_driver_path(void);
/* "580.159.04": what follows "libcuda.so." in the resolved path; "" when there is none. */
const char *lithos_driver_version(void);
/* Why there is none, for people; "" when there is one. */
const char *lithos_driver_why(void);
/* True in a process that has a right to be told (a tenant): a missing driver is then a warning, else only
 * information. */
void lithos_driver_set_loud(bool loud);
