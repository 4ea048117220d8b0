"""A program that uses the driver's interface alone and obeys lines on standard input: what tests' tenants of that kind have in common."""
import ctypes
import sys


class KernelNodeParams(ctypes.Structure):  # CUDA_KERNEL_NODE_PARAMS_v2
    _fields_ = [("func", ctypes.c_void_p), ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("params", ctypes.c_void_p), ("extra", ctypes.c_void_p), ("kern", ctypes.c_void_p), ("ctx", ctypes.c_void_p)]


class UpdateResult(ctypes.Structure):
    _fields_ = [("result", ctypes.c_int), ("node", ctypes.c_void_p), ("from_node", ctypes.c_void_p)]


class CudaTenant:
    """On the first GPU, with a module of that PTX."""

    def __init__(self, ptx):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context, self.module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.must("cuInit", 0)
        self.must("cuDeviceGet", ctypes.byref(device), 0)
        self.must("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.must("cuCtxSetCurrent", context)
        self.must("cuModuleLoadData", ctypes.byref(self.module), ctypes.c_char_p(ptx))

    def must(self, name, *args):
        result = getattr(self.cuda, name)(*args)
        if result:
            raise RuntimeError(f"{name} failed with {result}")

    def new(self, name, *args):
        handle = ctypes.c_void_p()
        self.must(name, ctypes.byref(handle), *args)
        return handle

    def nodes_of(self, graph):
        nodes, count = (ctypes.c_void_p * 8)(), ctypes.c_size_t(8)
        self.must("cuGraphGetNodes", graph, nodes, ctypes.byref(count))
        return [ctypes.c_void_p(n) for n in nodes[:count.value]]

    def obey(self):
        """Each line names a method and its arguments, and is answered with "done"."""
        print("ready", flush=True)
        for line in sys.stdin:
            word, *args = line.split()
            getattr(self, word)(*args)
            print("done", flush=True)
