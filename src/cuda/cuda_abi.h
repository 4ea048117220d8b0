/* The little of the CUDA driver's binary interface that LithOS uses, declared from its public documentation so that
 * building needs no SDK. tests/unit/test_cuda_abi.c compares it with cuda.h where that exists.
 * Names are the driver's own; this header and cuda.h must not meet in one file. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef int CUresult; /* enum cudaError_enum */
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUlib_st *CUlibrary;
typedef struct CUkern_st *CUkernel;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUgreenCtx_st *CUgreenCtx;
typedef struct CUlinkState_st *CUlinkState;
typedef struct {
    unsigned char bytes[16];
} CUuuid;

/* X(name, value): results that LithOS returns or tests for. */
#define CUDA_RESULTS(X)                               \
    X(CUDA_SUCCESS, 0)                                \
    X(CUDA_ERROR_INVALID_VALUE, 1)                    \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                    \
    X(CUDA_ERROR_NOT_INITIALIZED, 3)                  \
    X(CUDA_ERROR_DEINITIALIZED, 4)                    \
    X(CUDA_ERROR_STUB_LIBRARY, 34)                    \
    X(CUDA_ERROR_NO_DEVICE, 100)                      \
    X(CUDA_ERROR_INVALID_DEVICE, 101)                 \
    X(CUDA_ERROR_INVALID_IMAGE, 200)                  \
    X(CUDA_ERROR_INVALID_CONTEXT, 201)                \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)              \
    X(CUDA_ERROR_INVALID_PTX, 218)                    \
    X(CUDA_ERROR_INVALID_HANDLE, 400)                 \
    X(CUDA_ERROR_ILLEGAL_STATE, 401)                  \
    X(CUDA_ERROR_NOT_FOUND, 500)                      \
    X(CUDA_ERROR_NOT_READY, 600)                      \
    X(CUDA_ERROR_ILLEGAL_ADDRESS, 700)                \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)        \
    X(CUDA_ERROR_LAUNCH_TIMEOUT, 702)                 \
    X(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, 708)         \
    X(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709)           \
    X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712) \
    X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, 713)     \
    X(CUDA_ERROR_ASSERT, 710)                         \
    X(CUDA_ERROR_HARDWARE_STACK_ERROR, 714)           \
    X(CUDA_ERROR_LAUNCH_FAILED, 719)                  \
    X(CUDA_ERROR_NOT_PERMITTED, 800)                  \
    X(CUDA_ERROR_NOT_SUPPORTED, 801)                  \
    X(CUDA_ERROR_MPS_CONNECTION_FAILED, 805)          \
    X(CUDA_ERROR_MPS_RPC_FAILURE, 806)                \
    X(CUDA_ERROR_MPS_SERVER_NOT_READY, 807)           \
    X(CUDA_ERROR_MPS_CLIENT_TERMINATED, 810)          \
    X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900)     \
    X(CUDA_ERROR_UNKNOWN, 999)

enum {
#define X(name, value) name = value,
    CUDA_RESULTS(X)
#undef X
};

/* X(name, value): other numbers. */
#define CUDA_CONSTANTS(X)                                           \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1)                 \
    X(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 10)                            \
    X(CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 13)                           \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                 \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 20)                         \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 39)       \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)             \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)             \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 81) \
    X(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 82)     \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)    \
    X(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0)                   \
    X(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 1)                       \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4)                                \
    X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)           \
    X(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 9)        \
    X(CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 14)      \
    X(CU_GET_PROC_ADDRESS_DEFAULT, 0)                               \
    X(CU_GET_PROC_ADDRESS_LEGACY_STREAM, 1)                         \
    X(CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, 2)             \
    X(CU_GET_PROC_ADDRESS_SUCCESS, 0)                               \
    X(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, 1)                      \
    X(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, 2)                \
    X(CU_STREAM_DEFAULT, 0)                                         \
    X(CU_STREAM_NON_BLOCKING, 1)                                    \
    X(CU_EVENT_DEFAULT, 0)                                          \
    X(CU_EVENT_DISABLE_TIMING, 2)                                   \
    X(CU_MEMHOSTALLOC_PORTABLE, 1)                                  \
    X(CU_MEMHOSTALLOC_DEVICEMAP, 2)                                 \
    X(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 2)                          \
    X(CU_MEMORYTYPE_HOST, 1)                                        \
    X(CU_MEMORYTYPE_DEVICE, 2)                                      \
    X(CU_MEMORYTYPE_ARRAY, 3)                                       \
    X(CU_MEMORYTYPE_UNIFIED, 4)                                     \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0)                             \
    X(CU_STREAM_CAPTURE_MODE_RELAXED, 2)                            \
    X(CU_JIT_INPUT_PTX, 1)                                          \
    X(CU_LAUNCH_ATTRIBUTE_IGNORE, 0)                                \
    X(CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, 1)                  \
    X(CU_LAUNCH_ATTRIBUTE_COOPERATIVE, 2)                           \
    X(CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, 3)                \
    X(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, 4)                     \
    X(CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE, 5)  \
    X(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 6)     \
    X(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT, 7)                    \
    X(CU_LAUNCH_ATTRIBUTE_PRIORITY, 8)                              \
    X(CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP, 9)                   \
    X(CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN, 10)                      \
    X(CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION, 11)          \
    X(CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT, 12)              \
    X(CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 14)     \
    X(CU_GRAPH_NODE_TYPE_KERNEL, 0)                                 \
    X(CU_GRAPH_NODE_TYPE_MEMCPY, 1)                                 \
    X(CU_GRAPH_NODE_TYPE_MEMSET, 2)                                 \
    X(CU_GRAPH_NODE_TYPE_HOST, 3)                                   \
    X(CU_GRAPH_NODE_TYPE_GRAPH, 4)                                  \
    X(CU_GRAPH_NODE_TYPE_EMPTY, 5)                                  \
    X(CU_GRAPH_NODE_TYPE_WAIT_EVENT, 6)                             \
    X(CU_GRAPH_NODE_TYPE_EVENT_RECORD, 7)                           \
    X(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, 12)                          \
    X(CU_STREAM_MEM_OP_WAIT_VALUE_32, 1)                            \
    X(CU_STREAM_MEM_OP_WRITE_VALUE_32, 2)                           \
    X(CU_STREAM_MEM_OP_WAIT_VALUE_64, 4)                            \
    X(CU_STREAM_MEM_OP_WRITE_VALUE_64, 5)                           \
    X(CU_STREAM_WAIT_VALUE_GEQ, 0)                                  \
    X(CU_STREAM_WAIT_VALUE_EQ, 1)                                   \
    X(CU_STREAM_WAIT_VALUE_AND, 2)                                  \
    X(CU_STREAM_WAIT_VALUE_NOR, 3)                                  \
    X(CU_STREAM_WAIT_VALUE_FLUSH, 1 << 30)                          \
    X(CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER, 1)                   \
    X(CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER, 2)                    \
    X(CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC, 1)                     \
    X(CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, 2)                        \
    X(CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH, 4)                 \
    X(CU_GRAPH_EXEC_UPDATE_SUCCESS, 0)                              \
    X(CU_GRAPH_EXEC_UPDATE_ERROR, 1)                                \
    X(CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, 2)               \
    X(CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED, 3)              \
    X(CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED, 5)

enum {
#define X(name, value) name = value,
    CUDA_CONSTANTS(X)
#undef X
};

/* Streams that are numbers, not objects. */
#define CU_STREAM_LEGACY ((CUstream)0x1)
#define CU_STREAM_PER_THREAD ((CUstream)0x2)

typedef union {
    char pad[64];
    int cooperative;
    struct {
        unsigned int x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
    int priority;
} CUlaunchAttributeValue;

typedef struct {
    int id; /* CU_LAUNCH_ATTRIBUTE_* */
    char pad[4];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;

typedef struct {
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned int numAttrs;
} CUlaunchConfig;

/* What cuLaunchKernel's `extra` names. */
#define CU_LAUNCH_PARAM_END ((uintptr_t)0)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((uintptr_t)1)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((uintptr_t)2)

/* CUDA_MEMCPY2D_v2, CUDA_MEMCPY3D_v2 */
typedef struct {
    size_t srcXInBytes, srcY;
    int srcMemoryType; /* CU_MEMORYTYPE_* */
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray;
    size_t srcPitch;
    size_t dstXInBytes, dstY;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray;
    size_t dstPitch;
    size_t WidthInBytes, Height;
} CUDA_MEMCPY2D;

typedef struct {
    size_t srcXInBytes, srcY, srcZ, srcLOD;
    int srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray;
    void *reserved0;
    size_t srcPitch, srcHeight;
    size_t dstXInBytes, dstY, dstZ, dstLOD;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray;
    void *reserved1;
    size_t dstPitch, dstHeight;
    size_t WidthInBytes, Height, Depth;
} CUDA_MEMCPY3D;

/* Graphs. Of v1 is what v2 has, but for the last two. */
typedef struct {
    CUfunction func;
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    void **kernelParams;
    void **extra;
} CUDA_KERNEL_NODE_PARAMS_v1;

typedef struct {
    CUfunction func;
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    void **kernelParams;
    void **extra;
    CUkernel kern; /* looked at when func is NULL */
    CUcontext ctx; /* for kern; NULL: the current one */
} CUDA_KERNEL_NODE_PARAMS_v2;

/* One memory operation. */
typedef union {
    int operation; /* CU_STREAM_MEM_OP_* */
    struct {
        int operation;
        CUdeviceptr address;
        union {
            uint32_t value;
            uint64_t value64;
        };
        unsigned int flags; /* CU_STREAM_WAIT_VALUE_*, CU_STREAM_WRITE_VALUE_* */
        CUdeviceptr alias;  /* the driver's own */
    } waitValue, writeValue;
    uint64_t pad[6];
} CUstreamBatchMemOpParams;

typedef struct {
    CUcontext ctx;
    unsigned int count;
    CUstreamBatchMemOpParams *paramArray;
    unsigned int flags; /* 0 */
} CUDA_BATCH_MEM_OP_NODE_PARAMS;

typedef struct {
    int result; /* CU_GRAPH_EXEC_UPDATE_* */
    CUgraphNode errorNode, errorFromNode;
} CUgraphExecUpdateResultInfo_v1;

typedef struct {
    unsigned char from_port, to_port, type, reserved[5];
} CUgraphEdgeData;

typedef struct {
    uint64_t flags;
    CUstream hUploadStream;
    CUgraphNode hErrNode_out;
    int result_out;
} CUDA_GRAPH_INSTANTIATE_PARAMS;

/* The export table that carries the QMD callback (docs/hardware.md, "Seeing every launch"). */
#define LITHOS_QMD_TABLE_UUID                                                                              \
    {                                                                                                      \
        {                                                                                                  \
            0x2c, 0x8e, 0x0a, 0xd8, 0x07, 0x10, 0xab, 0x4e, 0x90, 0xdd, 0x54, 0x71, 0x9f, 0xe5, 0xf7, 0x4b \
        }                                                                                                  \
    }
#define LITHOS_QMD_TABLE_SUBSCRIBE 3 /* entry: int subscribe(uint32_t *handle, callback, void *user) */
#define LITHOS_QMD_TABLE_ENABLE 6    /* entry: int enable(uint32_t on, uint32_t handle, int domain, int id) */
#define LITHOS_QMD_DOMAIN 0xb
#define LITHOS_QMD_CALLBACK_ID 1
#define LITHOS_QMD_PARAMS_BYTES 0x58u /* params[0], its own size */
/* 8-byte words of params: the CUcontext, the CUmodule and the CUfunction of the kernel (the driver's own have some of their own), and
 * the QMD in host memory. */
#define LITHOS_QMD_PARAMS_CONTEXT 1u
#define LITHOS_QMD_PARAMS_MODULE 2u
#define LITHOS_QMD_PARAMS_FUNCTION 3u
#define LITHOS_QMD_PARAMS_QMD 4u

typedef void (*lithos_qmd_callback)(void *user, int domain, int id, const void *params);
typedef int (*lithos_qmd_subscribe_fn)(uint32_t *ret_handle, lithos_qmd_callback callback, void *user);
typedef int (*lithos_qmd_enable_fn)(uint32_t on, uint32_t handle, int domain, int id);
