/* A server of the virtual GPU's wire for unit tests: an H200 by name on which everything is over at once. Blocks go to
 * the SMs that the mask allows in turn; TPCs are mask bits 0 to 65, two SMs each. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vgpu/wire.h"

struct fake_server {
    char dir[64], path[96];
    int listener;
    int client;                              /* connection, -1 before */
    _Atomic int messages[VGPU_MSG_TYPE_MAX]; /* how many came, by type */
    _Atomic bool hold;                       /* answer nothing but HELLO until it is false */
    _Atomic int fault;                       /* the next launch is answered by a FAULT with this result */
    _Atomic bool skip_upper;                 /* launches: say that only the first half of the blocks ran */
    struct vgpu_launch last;                 /* the last launch */
    void (*on_launch)(
        const struct vgpu_launch *launch); /* called with each, by the server's thread; NULL: nothing */
    struct vgpu_hello hello;
};

/* Listens, sets LITHOS_VGPU_SOCKET, and serves one client on a thread of its own. Exits the process on failure. */
void fake_server_start(struct fake_server *s);
/* The connection ends, as when lithos-vgpud dies. */
void fake_server_die(struct fake_server *s);
