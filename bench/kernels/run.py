#!/usr/bin/env python3
"""Kernels to be cut, one at a time, on command: prints "ready" and the names it knows, then obeys lines.

    warm NAME N     N launches (of an operation: with all its kernels), waited for: prints "done"
    time NAME N     the same, timed by events: prints {"us": of one, "launches": N}
Names and sizes are those of an 80 GB card; what a framework lacks is left out of the names."""
import argparse
import ctypes
import json
import pathlib
import sys

GIB = 1 << 30


class Driver:
    """The sample kernels, by the driver's interface alone."""

    def __init__(self, ptx):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.out, self.sms = ctypes.c_uint64(), ctypes.c_int()
        self.must("cuInit", 0)
        self.must("cuDeviceGet", ctypes.byref(device), 0)
        self.must("cuDeviceGetAttribute", ctypes.byref(self.sms), 16, device)
        self.must("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.must("cuCtxSetCurrent", context)
        self.must("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(pathlib.Path(ptx).read_bytes()))
        self.must("cuMemAlloc_v2", ctypes.byref(self.out), ctypes.c_size_t(256))
        self.functions = {}
        for name in ("lithos_fma", "lithos_fma_long"):
            f = ctypes.c_void_p()
            self.must("cuModuleGetFunction", ctypes.byref(f), module, name.encode())
            self.functions[name] = f
        self.events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for e in self.events:
            self.must("cuEventCreate", ctypes.byref(e), 0)

    def must(self, name, *args):
        result = getattr(self.cuda, name)(*args)
        if result:
            raise SystemExit(f"kernels: {name} failed with {result}")

    def launch(self, name, blocks, steps):
        steps = ctypes.c_uint32(steps)
        arguments = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.byref(self.out), ctypes.c_void_p),
                                          ctypes.cast(ctypes.byref(steps), ctypes.c_void_p))
        self.must("cuLaunchKernel", self.functions[name], blocks, 1, 1, 128, 1, 1, 0, None, arguments, None)

    def time_us(self, function, n):
        ms = ctypes.c_float()
        self.must("cuEventRecord", self.events[0], None)
        for _ in range(n):
            function()
        self.must("cuEventRecord", self.events[1], None)
        self.must("cuCtxSynchronize")
        self.must("cuEventElapsedTime", ctypes.byref(ms), *self.events)
        return ms.value * 1e3 / n

    def kernels(self, small):
        short, long = (80 if small else 640) * self.sms.value, (32 if small else 64) * self.sms.value
        return {"fma, short blocks": lambda: self.launch("lithos_fma", short, 20000),
                "fma, long blocks": lambda: self.launch("lithos_fma_long", long, 40000 if small else 200000)}


def torch_kernels(torch):
    """Each makes what it needs at its first call, and gives back what the one before had."""
    held = {}

    def lazily(name, make, call):
        def run():
            if held.get("name") != name:
                held.clear()
                torch.cuda.empty_cache()
                held.update(name=name, made=make())
            return call(*held["made"])
        return run

    def rand(*shape, dtype=torch.float32, **more):
        return torch.randn(*shape, device="cuda", dtype=dtype, **more)

    def attention(grad):
        q, k, v = (rand(16, 16, 8192, 64, dtype=torch.bfloat16, requires_grad=grad) for _ in range(3))
        if not grad:
            return q, k, v
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return out, (q, k, v), torch.ones_like(out)

    def convolution(grad):
        x = rand(256, 128, 56, 56, dtype=torch.float16, requires_grad=grad)
        w = rand(128, 128, 3, 3, dtype=torch.float16, requires_grad=grad)
        if not grad:
            return x, w
        out = torch.nn.functional.conv2d(x, w, padding=1)
        return out, (x, w), torch.ones_like(out)

    def backward(out, inputs, ones):
        return torch.autograd.grad(out, inputs, ones, retain_graph=True)

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return {
        "fp32 gemm 8192": lazily("gemm", lambda: (rand(8192, 8192), rand(8192, 8192)), torch.matmul),
        "attention forward": lazily("attention", lambda: attention(False),
                                    torch.nn.functional.scaled_dot_product_attention),
        "attention backward": lazily("attention backward", lambda: attention(True), backward),
        "convolution forward": lazily("convolution", lambda: convolution(False),
                                      lambda x, w: torch.nn.functional.conv2d(x, w, padding=1)),
        "convolution backward": lazily("convolution backward", lambda: convolution(True), backward),
        "fp32 convolution": lazily("fp32 convolution", lambda: (rand(128, 128, 56, 56), rand(128, 128, 3, 3)),
                                   lambda x, w: torch.nn.functional.conv2d(x, w, padding=1)),
        "softmax": lazily("softmax", lambda: (rand(131072, 4096),), lambda x: torch.softmax(x, 1)),
        "elementwise 4 GiB": lazily("elementwise", lambda: (rand(GIB),), lambda x: x.mul_(1.0001)),
        "sum 4 GiB": lazily("sum", lambda: (rand(GIB),), torch.sum),
        "layer norm": lazily("layer norm", lambda: (rand(262144, 2048),),
                             lambda x: torch.nn.functional.layer_norm(x, (2048,))),
        "persistent bf16 gemm 8192": lazily("bf16 gemm", lambda: (rand(8192, 8192, dtype=torch.bfloat16),
                                                                  rand(8192, 8192, dtype=torch.bfloat16)), torch.matmul),
    }


def triton_kernels(torch):
    import triton
    import triton.language as tl

    @triton.jit
    def matmul(a, b, c, n, BLOCK: tl.constexpr, STEP: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        acc = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        for k0 in range(0, n, STEP):
            k = k0 + tl.arange(0, STEP)
            acc += tl.dot(tl.load(a + i[:, None] * n + k[None, :]), tl.load(b + k[:, None] * n + j[None, :]))
        tl.store(c + i[:, None] * n + j[None, :], acc)

    n, block = 8192, 128
    made = []

    def run():
        if not made:
            a, b = (torch.randn(n, n, device="cuda", dtype=torch.float16) for _ in range(2))
            made.extend((a, b, torch.empty(n, n, device="cuda")))
        matmul[(n // block, n // block)](*made, n, BLOCK=block, STEP=32, num_warps=8)
    return {"triton gemm 8192": run}


class Framework:
    def __init__(self, torch):
        self.torch = torch
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def time_us(self, function, n):
        self.begin.record()
        for _ in range(n):
            function()
        self.end.record()
        self.torch.cuda.synchronize()
        return self.begin.elapsed_time(self.end) * 1e3 / n


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--ptx", required=True, help="samples.ptx")
    p.add_argument("--no-torch", action="store_true", help="the sample kernels alone")
    p.add_argument("--small", action="store_true", help="an eighth of their blocks: for the virtual GPU")
    o = p.parse_args()
    driver = Driver(o.ptx)
    table = {name: (driver, f) for name, f in driver.kernels(o.small).items()}
    if not o.no_torch:
        try:
            import torch
            framework = Framework(torch)
            table.update((name, (framework, f)) for name, f in torch_kernels(torch).items())
            table.update((name, (framework, f)) for name, f in triton_kernels(torch).items())
        except ImportError as e:
            print(f"kernels: {e}", file=sys.stderr)
    print("ready " + json.dumps(list(table)), flush=True)
    for line in sys.stdin:
        what, _, rest = line.strip().partition(" ")
        name, _, n = rest.rpartition(" ")
        timer, function = table[name]
        us = timer.time_us(function, int(n))
        print("done" if what == "warm" else json.dumps({"us": us, "launches": int(n)}), flush=True)


main()
