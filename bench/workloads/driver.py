"""The driver's interface from Python, without a framework: what programs that use it alone have in common."""
import ctypes
import sys


class KernelNodeParams(ctypes.Structure):  # CUDA_KERNEL_NODE_PARAMS_v2
    _fields_ = [("func", ctypes.c_void_p), ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("params", ctypes.c_void_p), ("extra", ctypes.c_void_p), ("kern", ctypes.c_void_p), ("ctx", ctypes.c_void_p)]


class UpdateResult(ctypes.Structure):
    _fields_ = [("result", ctypes.c_int), ("node", ctypes.c_void_p), ("from_node", ctypes.c_void_p)]


class Driver:
    """In the primary context of the first GPU, with a module of that PTX."""

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

    def function(self, name):
        return self.new("cuModuleGetFunction", self.module, name.encode())

    def memory(self, words):
        """Words of 32 bits on the card, of zero."""
        at = ctypes.c_uint64()
        self.must("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(4 * words))
        self.zero(at, words)
        return at

    def zero(self, at, words):
        self.must("cuMemsetD32_v2", at, 0, ctypes.c_size_t(words))

    def words(self, at, count):
        host = (ctypes.c_uint32 * count)()
        self.must("cuMemcpyDtoH_v2", host, at, ctypes.c_size_t(4 * count))
        return host

    def launch(self, function, blocks, threads, shared, stream, *arguments):
        """arguments: ctypes values."""
        self.must("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, shared, stream, pointers(arguments), None)

    def nodes_of(self, graph):
        nodes, count = (ctypes.c_void_p * 8)(), ctypes.c_size_t(8)
        self.must("cuGraphGetNodes", graph, nodes, ctypes.byref(count))
        return [ctypes.c_void_p(n) for n in nodes[:count.value]]


def pointers(arguments):
    """What the driver takes as a kernel's parameters. They must live as long as that."""
    return (ctypes.c_void_p * max(1, len(arguments)))(*map(ctypes.addressof, arguments))


def obey(program):
    """Each line names a method and its arguments, and is answered with what that says, or "done"."""
    print("ready", flush=True)
    for line in sys.stdin:
        word, *args = line.split()
        said = getattr(program, word)(*args)
        print("done" if said is None else said, flush=True)
