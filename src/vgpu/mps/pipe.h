/* The folder where the virtual MPS control listens, as the real one's CUDA_MPS_PIPE_DIRECTORY. */
#pragma once

#define VGPU_MPS_CONTROL "control"
/* A process asks to be a client; the answer comes from the server, with its pid. */
#define VGPU_MPS_CLIENT_HELLO "client"
#define VGPU_MPS_CLIENT_WELCOME "server"

/* $CUDA_MPS_PIPE_DIRECTORY, or /tmp/nvidia-mps. */
const char *vgpu_mps_pipe_dir(void);
/* A SOCK_SEQPACKET connection to the control there: text both ways, one packet a message. Negative errno when none
 * listens. */
int vgpu_mps_pipe_connect(void);
