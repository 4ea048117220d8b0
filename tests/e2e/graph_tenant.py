"""A tenant that replays a CUDA graph of three kernels, by the driver's interface alone, and changes it. Obeys lines on standard input
and answers each with "done"; tests/e2e/graphs.py writes them. Argument: how many times 10 blocks the first kernel has."""
import ctypes
import sys

PTX = b".version 7.0\n.target sm_52\n.address_size 64\n" + b"".join(
    b"// lithos-vgpu: timing-only\n.visible .entry %s()\n{\n    ret;\n}\n" % name for name in (b"first", b"second", b"third", b"fourth"))


class KernelNodeParams(ctypes.Structure):  # CUDA_KERNEL_NODE_PARAMS_v2
    _fields_ = [("func", ctypes.c_void_p), ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("params", ctypes.c_void_p), ("extra", ctypes.c_void_p), ("kern", ctypes.c_void_p), ("ctx", ctypes.c_void_p)]


class UpdateResult(ctypes.Structure):
    _fields_ = [("result", ctypes.c_int), ("node", ctypes.c_void_p), ("from_node", ctypes.c_void_p)]


TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 1


class Tenant:
    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.must("cuInit", 0)
        self.must("cuDeviceGet", ctypes.byref(device), 0)
        self.must("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.must("cuCtxSetCurrent", context)
        self.must("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX))
        self.functions = {}
        for name in ("first", "second", "third", "fourth"):
            self.functions[name] = ctypes.c_void_p()
            self.must("cuModuleGetFunction", ctypes.byref(self.functions[name]), module, name.encode())
        self.stream = self.new("cuStreamCreate", 1)
        if TIMES > 1:  # as frameworks do: LithOS cuts nothing before it has seen that the driver calls its hook
            self.plain("fourth", 1)
        self.graph = self.capture("first", "second", "third")
        self.nodes = self.nodes_of(self.graph)
        self.exec = self.new("cuGraphInstantiateWithFlags", self.graph, ctypes.c_ulonglong(0))

    def must(self, name, *args):
        result = getattr(self.cuda, name)(*args)
        if result:
            raise RuntimeError(f"{name} failed with {result}")

    def new(self, name, *args):
        handle = ctypes.c_void_p()
        self.must(name, ctypes.byref(handle), *args)
        return handle

    def launch(self, name, blocks):
        self.must("cuLaunchKernel", self.functions[name], blocks, 1, 1, 128, 1, 1, 0, self.stream, None, None)

    def capture(self, *names):
        graph = ctypes.c_void_p()
        self.must("cuStreamBeginCapture_v2", self.stream, 2)
        for i, name in enumerate(names):
            self.launch(name, (10 + i) * TIMES)
        self.must("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        return graph

    def nodes_of(self, graph):
        nodes, count = (ctypes.c_void_p * 8)(), ctypes.c_size_t(8)
        self.must("cuGraphGetNodes", graph, nodes, ctypes.byref(count))
        return [ctypes.c_void_p(n) for n in nodes[:count.value]]

    # ---- what can be asked for

    def replay(self, times):
        for _ in range(int(times)):
            self.must("cuGraphLaunch", self.exec, self.stream)
            self.must("cuStreamSynchronize", self.stream)

    def pile(self, times):
        """Replays without a wait between them."""
        for _ in range(int(times)):
            self.must("cuGraphLaunch", self.exec, self.stream)
        self.must("cuStreamSynchronize", self.stream)

    def plain(self, name, times, blocks=7):
        for _ in range(int(times)):
            self.launch(name, int(blocks))
        self.must("cuStreamSynchronize", self.stream)

    def set(self, node, name, blocks):
        p = KernelNodeParams(self.functions[name], (int(blocks), 1, 1), (128, 1, 1))
        self.must("cuGraphExecKernelNodeSetParams_v2", self.exec, self.nodes[int(node)], ctypes.byref(p))

    def switch(self, node, on):
        self.must("cuGraphNodeSetEnabled", self.exec, self.nodes[int(node)], int(on))

    def update(self, *names):
        result = UpdateResult()
        self.must("cuGraphExecUpdate_v2", self.exec, self.capture(*names), ctypes.byref(result))

    def again(self):
        """Instantiated anew; the exec before is gone."""
        self.must("cuGraphExecDestroy", self.exec)
        self.exec = self.new("cuGraphInstantiateWithFlags", self.graph, ctypes.c_ulonglong(0))


def main():
    tenant = Tenant()
    print("ready", flush=True)
    for line in sys.stdin:
        word, *args = line.split()
        getattr(tenant, word)(*args)
        print("done", flush=True)


main()
