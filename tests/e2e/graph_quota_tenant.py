"""A tenant that replays CUDA graphs whose kernels count their blocks, by the driver's interface alone. Obeys lines on standard input and answers
each with "done"; tests/e2e/graph_quota.py writes them. Argument: "keep", or "destroy" the CUgraph as soon as there is an exec, as PyTorch does."""
import ctypes
import sys

from cuda_tenant import CudaTenant, KernelNodeParams, UpdateResult

PTX = b""".version 7.0
.target sm_52
.address_size 64
.visible .entry mark(.param .u64 p_out)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p_out];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    mov.u32 %r2, 1;
    atom.global.add.u32 %r3, [%rd3], %r2;
    ret;
}
"""
# Of the three kernels: two of several waves of the whole card, since few blocks of so much shared memory fit on an SM, and one that is never cut.
BLOCKS = (4000, 3400, 300)
SHARED = 48 * 1024


class Tenant(CudaTenant):
    def __init__(self, graph):
        super().__init__(PTX)
        self.function = self.new("cuModuleGetFunction", self.module, b"mark")
        self.out = [self.memory(blocks) for blocks in BLOCKS]
        self.set = self.memory(64)
        self.other = self.memory(BLOCKS[0])
        self.streams = [self.new("cuStreamCreate", 1) for _ in range(3)]
        self.mark(self.set, 1, self.streams[0])  # LithOS cuts nothing before it has seen that the driver calls its hook
        self.graph = self.capture()
        self.nodes = self.nodes_of(self.graph)
        self.exec = self.new("cuGraphInstantiateWithFlags", self.graph, ctypes.c_ulonglong(0))
        if graph == "destroy":
            self.must("cuGraphDestroy", self.graph)
        self.wait()  # where the launch above runs must not be taken for where a replay does

    def memory(self, words):
        at = ctypes.c_uint64()
        self.must("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(4 * words))
        self.must("cuMemsetD32_v2", at, 0, ctypes.c_size_t(words))
        return at

    def mark(self, out, blocks, stream):
        params = (ctypes.c_void_p * 1)(ctypes.addressof(out))
        self.must("cuLaunchKernel", self.function, blocks, 1, 1, 1, 1, 1, SHARED, stream, params, None)

    def capture(self):
        """The first kernel, and beside each other the other two and a set."""
        graph, fork, join = ctypes.c_void_p(), self.new("cuEventCreate", 2), self.new("cuEventCreate", 2)
        s, beside = self.streams[:2]
        self.must("cuStreamBeginCapture_v2", s, 2)
        self.mark(self.out[0], BLOCKS[0], s)
        self.must("cuEventRecord", fork, s)
        self.must("cuStreamWaitEvent", beside, fork, 0)
        self.must("cuMemsetD32Async", self.set, 7, ctypes.c_size_t(64), beside)
        self.mark(self.out[1], BLOCKS[1], s)
        self.mark(self.out[2], BLOCKS[2], s)
        self.must("cuEventRecord", join, beside)
        self.must("cuStreamWaitEvent", s, join, 0)
        self.must("cuStreamEndCapture", s, ctypes.byref(graph))
        return graph

    # ---- what can be asked for

    def replay(self, times, stream=0):
        self.pile(times, stream)
        self.must("cuStreamSynchronize", self.streams[int(stream)])

    def pile(self, times, stream=0):
        """Without a wait."""
        for _ in range(int(times)):
            self.must("cuGraphLaunch", self.exec, self.streams[int(stream)])

    def wait(self):
        self.must("cuCtxSynchronize")

    def elsewhere(self):
        """The first kernel counts into other memory from now on."""
        params = (ctypes.c_void_p * 1)(ctypes.addressof(self.other))
        p = KernelNodeParams(self.function, (BLOCKS[0], 1, 1), (1, 1, 1), SHARED, ctypes.cast(params, ctypes.c_void_p))
        self.must("cuGraphExecKernelNodeSetParams_v2", self.exec, self.nodes[0], ctypes.byref(p))

    def update(self):
        """By a graph captured anew, which is gone then."""
        by, result = self.capture(), UpdateResult()
        self.must("cuGraphExecUpdate_v2", self.exec, by, ctypes.byref(result))
        self.must("cuGraphDestroy", by)

    def counts(self, first, second, other):
        """Each block has run so often."""
        for at, blocks, times in (*zip(self.out, BLOCKS, (first, second, second)), (self.other, BLOCKS[0], other)):
            words = (ctypes.c_uint32 * blocks)()
            self.must("cuMemcpyDtoH_v2", words, at, ctypes.c_size_t(4 * blocks))
            if set(words) != {int(times)}:
                raise RuntimeError(f"blocks have run {sorted(set(words))} times, not {times}")

    def end(self):
        self.must("cuGraphExecDestroy", self.exec)
        sys.exit(0)


Tenant(sys.argv[1]).obey()
