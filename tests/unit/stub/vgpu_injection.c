/* A library for CUDA_INJECTION64_PATH: notes that it was called, and how often. */
#include <stdlib.h>

__attribute__((visibility("default"))) int InitializeInjection(void);

int InitializeInjection(void)
{
    setenv("VGPU_INJECTED", getenv("VGPU_INJECTED") ? "twice" : "once", 1);
    return 1;
}
