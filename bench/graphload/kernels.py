"""A program that replays a CUDA graph whose kernels count their blocks and mark the SMs that they run on, by the driver's interface alone, and
changes it. Obeys lines on standard input (a method of Graphs and its arguments). Arguments: "keep", or "destroy" the CUgraph as soon as
there is an exec, as PyTorch does; turns that each block stays for (1)."""
import ctypes
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "workloads"))
from driver import Driver, KernelNodeParams, UpdateResult, obey, pointers  # noqa: E402

PTX = b""".version 7.0
.target sm_52
.address_size 64
.visible .entry mark(.param .u64 p_out, .param .u64 p_sms, .param .u32 p_turns)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<7>;
    ld.param.u64 %rd1, [p_out];
    ld.param.u64 %rd2, [p_sms];
    ld.param.u32 %r4, [p_turns];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    mov.u32 %r2, 1;
    atom.global.add.u32 %r3, [%rd4], %r2;
    mov.u32 %r1, %smid;
    mul.wide.u32 %rd5, %r1, 4;
    add.s64 %rd6, %rd2, %rd5;
    atom.global.add.u32 %r3, [%rd6], %r2;
AGAIN:
    sub.u32 %r4, %r4, 1;
    membar.gl;
    setp.ne.u32 %p1, %r4, 0;
    @%p1 bra AGAIN;
    ret;
}
"""
# Of the three kernels: two of several waves of the whole card, since few blocks of so much shared memory fit on an SM, and one that is never cut.
BLOCKS = (4000, 3400, 300)
SHARED = 48 * 1024
SMS_MAX = 1024


class Graphs(Driver):
    def __init__(self, graph, turns="1"):
        super().__init__(PTX)
        self.mark = self.function("mark")
        self.out = [self.memory(blocks) for blocks in BLOCKS]
        self.set = self.memory(64)
        self.other = self.memory(BLOCKS[0])
        self.sms, self.turns = self.memory(SMS_MAX), ctypes.c_uint32(int(turns))
        self.streams = [self.new("cuStreamCreate", 1) for _ in range(3)]
        self.marks(self.set, 1, self.streams[0])  # LithOS cuts nothing before it has seen that the driver calls its hook
        self.graph = self.capture()
        self.nodes = self.nodes_of(self.graph)
        self.exec = self.new("cuGraphInstantiateWithFlags", self.graph, ctypes.c_ulonglong(0))
        if graph == "destroy":
            self.must("cuGraphDestroy", self.graph)
        self.on_sms()  # where the launch above ran must not be taken for where a replay does

    def marks(self, out, blocks, stream):
        self.launch(self.mark, blocks, 1, SHARED, stream, out, self.sms, self.turns)

    def capture(self):
        """The first kernel, and beside each other the other two and a set."""
        graph, fork, join = ctypes.c_void_p(), self.new("cuEventCreate", 2), self.new("cuEventCreate", 2)
        s, beside = self.streams[:2]
        self.must("cuStreamBeginCapture_v2", s, 2)
        self.marks(self.out[0], BLOCKS[0], s)
        self.must("cuEventRecord", fork, s)
        self.must("cuStreamWaitEvent", beside, fork, 0)
        self.must("cuMemsetD32Async", self.set, 7, ctypes.c_size_t(64), beside)
        self.marks(self.out[1], BLOCKS[1], s)
        self.marks(self.out[2], BLOCKS[2], s)
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

    def time(self, times):
        """us of each of so many replays, with a wait after it."""
        us = []
        for _ in range(int(times)):
            begin = time.monotonic()
            self.replay(1)
            us.append(round(1e6 * (time.monotonic() - begin), 2))
        return json.dumps(us)

    def on_sms(self):
        """How many were marked since the last time."""
        self.wait()
        count = sum(1 for n in self.words(self.sms, SMS_MAX) if n)
        self.zero(self.sms, SMS_MAX)
        self.wait()
        return count

    def elsewhere(self):
        """The first kernel counts into other memory from now on."""
        arguments = pointers((self.other, self.sms, self.turns))
        p = KernelNodeParams(self.mark, (BLOCKS[0], 1, 1), (1, 1, 1), SHARED, ctypes.cast(arguments, ctypes.c_void_p))
        self.must("cuGraphExecKernelNodeSetParams_v2", self.exec, self.nodes[0], ctypes.byref(p))

    def update(self):
        """By a graph captured anew, which is gone then."""
        by, result = self.capture(), UpdateResult()
        self.must("cuGraphExecUpdate_v2", self.exec, by, ctypes.byref(result))
        self.must("cuGraphDestroy", by)

    def counts(self, first, second, other):
        """Each block has run so often."""
        for at, blocks, times in (*zip(self.out, BLOCKS, (first, second, second)), (self.other, BLOCKS[0], other)):
            words = self.words(at, blocks)
            if set(words) != {int(times)}:
                raise RuntimeError(f"blocks have run {sorted(set(words))} times, not {times}")

    def end(self):
        self.must("cuGraphExecDestroy", self.exec)
        sys.exit(0)


obey(Graphs(*sys.argv[1:]))
