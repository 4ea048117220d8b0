/* What a client may send: looked at before anything of it is used. */
#pragma once

#include <stddef.h>

#include "vgpu/wire.h"

union vgpu_client_msg {
    struct vgpu_msg_header h;
    struct vgpu_hello hello;
    struct vgpu_ctx ctx;
    struct vgpu_stream stream;
    struct vgpu_launch launch;
    struct vgpu_copy copy;
    struct vgpu_mark mark;
    struct vgpu_wait wait;
    struct vgpu_query query;
    struct vgpu_slice slice;
};

/* One message of len bytes as it came. 0; -EINVAL when it is no message of this version that a client may send, or a
 * field is out of its range: *ret_why then says what (a literal). Ids are not looked up: that is the server's. */
int vgpu_check_client_msg(const union vgpu_client_msg *msg, size_t len, const char **ret_why);
