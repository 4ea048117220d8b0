/* The parts of `lithos doctor'. Each check reports what it finds, good or bad, in one line or more. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "cli/child.h"

enum lithos_finding {
    LITHOS_FINDING_OK,
    LITHOS_FINDING_WARN, /* works, but not as well as it could */
    LITHOS_FINDING_FAIL, /* does not work */
    LITHOS_FINDING_MAX,
};

struct lithos_doctor {
    json_t *findings; /* array of {level, what, finding, mend} */
    bool text;        /* print lines as they come */
    unsigned counts[LITHOS_FINDING_MAX];
    const char *socket; /* of lithosd */
    char base[4096];    /* folder above bin/ */
    json_t *probe;      /* what lithos-probe said; NULL when it could not be had */
    bool virtual_gpu;
};

/* One line: what was looked at, how it is, and how to mend it (NULL when there is nothing to mend). */
void lithos_doctor_report(struct lithos_doctor *d, enum lithos_finding level, const char *what,
                          const char *mend, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* doctor_gpu.c: the driver, the GPUs, what of them LithOS can use. The first one runs the probe for the
 * others. */
void lithos_doctor_driver(struct lithos_doctor *d);
void lithos_doctor_device_nodes(struct lithos_doctor *d);
void lithos_doctor_gpus(struct lithos_doctor *d);
void lithos_doctor_cache(struct lithos_doctor *d);
/* doctor_system.c: the installation, the kernel, the loader, MPS, the daemon. */
void lithos_doctor_installation(struct lithos_doctor *d);
void lithos_doctor_library(struct lithos_doctor *d);
void lithos_doctor_preload(struct lithos_doctor *d);
void lithos_doctor_kernel(struct lithos_doctor *d);
void lithos_doctor_environment(struct lithos_doctor *d);
void lithos_doctor_mps(struct lithos_doctor *d);
void lithos_doctor_daemon(struct lithos_doctor *d);

/* First line of a text, without its end, for use inside a finding. Static storage. */
const char *lithos_first_line(const char *text);
