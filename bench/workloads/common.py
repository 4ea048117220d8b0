"""What every workload does at its end: say what it computed, count the SMs it may use, wait to be let go."""
import ctypes
import hashlib
import json
import os
import sys

from driver import Driver

# Block 0..n-1 each mark their SM and stay a while, so that the next block has to go elsewhere.
CENSUS_PTX = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry census(.param .u64 p_marks, .param .u32 p_turns)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [p_marks];
    ld.param.u32 %r1, [p_turns];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %smid;
    mul.wide.u32 %rd3, %r2, 4;
    add.u64 %rd4, %rd2, %rd3;
    mov.u32 %r3, 1;
    atom.global.add.u32 %r4, [%rd4], %r3;
AGAIN:
    sub.u32 %r1, %r1, 1;
    membar.gl;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra AGAIN;
    ret;
}
"""
SMS_MAX = 1024


class Census:
    """A kernel whose blocks mark the SMs that they run on, in the primary context."""

    def __init__(self):
        self.driver = Driver(CENSUS_PTX)
        self.function, self.marks = self.driver.function("census"), self.driver.memory(SMS_MAX)

    def launch(self, stream=None, blocks=2048, turns=500):
        self.driver.launch(self.function, blocks, 1024, 0, stream, self.marks, ctypes.c_uint32(turns))

    def count(self):
        """SMs reached since the last time."""
        self.driver.must("cuCtxSynchronize")
        sms = sum(1 for n in self.driver.words(self.marks, SMS_MAX) if n)
        self.driver.zero(self.marks, SMS_MAX)
        return sms

    def end(self):
        self.driver.must("cuMemFree_v2", self.marks)
        self.driver.must("cuModuleUnload", self.driver.module)


def census():
    """SMs that a kernel of this process reaches."""
    c = Census()
    for _ in range(3):
        c.launch()
    sms = c.count()
    c.end()
    return sms


def to_bytes(value):
    if isinstance(value, bytes):
        return value
    if hasattr(value, "detach"):  # torch
        import torch
        value = value.detach().contiguous()
        return value.view(torch.uint8).cpu().numpy().tobytes() if value.dim() else value.reshape(1).view(torch.uint8).cpu().numpy().tobytes()
    if hasattr(value, "get"):  # cupy
        return value.get().tobytes()
    import numpy
    return numpy.asarray(value).tobytes()


def finish(tensors, values=None):
    """tensors: what was computed, by name, hashed bit for bit. values: a few numbers, for results that vary from run to
    run. Prints one line, then waits for a line, so that the tenant can be looked at while it lives."""
    hashes = {name: hashlib.sha256(to_bytes(t)).hexdigest()[:16] for name, t in tensors.items()}
    print("RESULT " + json.dumps({"hashes": hashes, "values": values or {}, "sms": census(), "pid": os.getpid()}), flush=True)
    sys.stdin.readline()


def deterministic_torch(seed=1):
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch
