"""A tenant that replays a CUDA graph of three kernels, by the driver's interface alone, and changes it. Obeys lines on standard input
and answers each with "done"; tests/e2e/graphs.py writes them. Argument: how many times 10 blocks the first kernel has."""
import ctypes
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench/workloads"))
from driver import Driver, KernelNodeParams, UpdateResult, obey  # noqa: E402

PTX = b".version 7.0\n.target sm_52\n.address_size 64\n" + b"".join(
    b"// lithos-vgpu: timing-only\n.visible .entry %s()\n{\n    ret;\n}\n" % name for name in (b"first", b"second", b"third", b"fourth"))


TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 1


class Tenant(Driver):
    def __init__(self):
        super().__init__(PTX)
        self.functions = {name: self.function(name) for name in ("first", "second", "third", "fourth")}
        self.stream = self.new("cuStreamCreate", 1)
        if TIMES > 1:  # as frameworks do: LithOS cuts nothing before it has seen that the driver calls its hook
            self.plain("fourth", 1)
        self.graph = self.capture("first", "second", "third")
        self.nodes = self.nodes_of(self.graph)
        self.exec = self.new("cuGraphInstantiateWithFlags", self.graph, ctypes.c_ulonglong(0))

    def call(self, name, blocks):
        self.launch(self.functions[name], blocks, 128, 0, self.stream)

    def capture(self, *names):
        graph = ctypes.c_void_p()
        self.must("cuStreamBeginCapture_v2", self.stream, 2)
        for i, name in enumerate(names):
            self.call(name, (10 + i) * TIMES)
        self.must("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        return graph

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
            self.call(name, int(blocks))
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


obey(Tenant())
