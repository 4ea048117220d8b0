"""A model of no framework: a dozen launches of the sample kernels, by the driver's interface alone.

It stands in where there is no PyTorch, above all on the virtual GPU, so that a benchmark can be tried and tested anywhere.
Grids grow with the batch, and the same function does different work at different places."""
import ctypes
import json
import random
import time

PTX = b"""
.version 7.0
.target sm_52
.address_size 64
// lithos-vgpu: timing-only
.visible .entry lithos_fma(.param .u64 p_out, .param .u32 p_iters)
{
    .reg .pred %p<3>;
    .reg .f32 %f<4>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [p_out];
    ld.param.u32 %r1, [p_iters];
    mov.u32 %r2, %tid.x;
    cvt.rn.f32.u32 %f1, %r2;
    mov.f32 %f2, 0f3F800347;
    mov.f32 %f3, 0f3F000000;
MORE:
    fma.rn.f32 %f1, %f1, %f2, %f3;
    fma.rn.f32 %f1, %f1, %f2, %f3;
    sub.u32 %r1, %r1, 1;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra MORE;
    setp.neu.f32 %p2, %f1, 0f42F6E979;
    @%p2 bra DONE;
    cvta.to.global.u64 %rd2, %rd1;
    st.global.f32 [%rd2], %f1;
DONE:
    ret;
}
"""
# (steps of the kernel, blocks a sample of the batch, blocks without any)
LAYERS = tuple((steps, 33 * grown, 66) for steps in (4000, 12000, 8000) for grown in (1, 2, 3, 4))
# With --tiny: none fills a third of the card.
FEW = tuple((steps, 0, blocks) for steps in (4000, 12000, 8000) for blocks in (8, 16, 24, 40))
THREADS = 128


class Runner:
    def __init__(self, o):
        self.o = o
        self.pauses = random.Random(o.seed)
        # apart: no two layers launch the same, and each is an operator of its own
        self.layers = [(steps, grown, blocks + i * o.apart) for i, (steps, grown, blocks) in enumerate(FEW if o.tiny else LAYERS)]
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.function, self.out = ctypes.c_void_p(), ctypes.c_uint64()
        self.must("cuInit", 0)
        self.must("cuDeviceGet", ctypes.byref(device), 0)
        self.must("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.must("cuCtxSetCurrent", context)
        self.must("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX))
        self.must("cuModuleGetFunction", ctypes.byref(self.function), module, b"lithos_fma")
        self.must("cuMemAlloc_v2", ctypes.byref(self.out), ctypes.c_size_t(4))
        self.asked_ns = 0  # when the last step had made its launches
        self.events = None  # of a profiled run: one before each launch, and one at the end

    def must(self, name, *args):
        result = getattr(self.cuda, name)(*args)
        if result:
            raise RuntimeError(f"{name} failed with {result}")

    def synchronize(self):
        self.must("cuCtxSynchronize")

    def mark(self):
        event = ctypes.c_void_p()
        self.must("cuEventCreate", ctypes.byref(event), 0)
        self.must("cuEventRecord", event, None)
        return event

    def step(self, batch):
        grids = []
        pause_s = self.pauses.choice(self.o.pauses) * self.o.time_scale / 1e6 if self.o.pauses else 0
        for steps, grown, fixed in self.layers:
            iters, blocks = ctypes.c_uint32(steps), fixed + grown * batch
            arguments = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.byref(self.out), ctypes.c_void_p),
                                              ctypes.cast(ctypes.byref(iters), ctypes.c_void_p))
            if pause_s:
                time.sleep(pause_s)
            if self.events is not None:
                grids.append((self.mark(), blocks))
            self.must("cuLaunchKernel", self.function, blocks, 1, 1, THREADS, 1, 1, 0, None, arguments, None)
        if self.events is not None:
            self.events.append((time.time_ns(), grids, self.mark()))
        self.asked_ns = time.monotonic_ns()
        self.synchronize()

    def profile(self, body, path):
        """In place of a profiler: events around each launch, in the profiler's format. Their times are off by what an event
        costs, some microseconds."""
        self.events = []
        body()
        kernels, correlation = [], 0
        for wall_ns, grids, last in self.events:
            bounds = [event for event, _ in grids] + [last]
            at_us = wall_ns / 1e3  # when the launches had been made, near enough to tell iterations apart
            for (begin, blocks), end in zip(grids, bounds[1:]):
                ms = ctypes.c_float()
                self.must("cuEventElapsedTime", ctypes.byref(ms), begin, end)
                took_us = ms.value * 1e3 * self.o.time_scale
                correlation += 1
                kernels.append({"ph": "X", "cat": "kernel", "name": "lithos_fma", "ts": at_us, "dur": took_us,
                                "args": {"stream": 7, "correlation": correlation, "grid": [blocks, 1, 1],
                                         "block": [THREADS, 1, 1]}})
                at_us += took_us
        self.events = None
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"baseTimeNanoseconds": 0, "traceEvents": kernels}, f)

    def versions(self):
        return {}
