"""A burner in PyTorch: bf16 matrix products back to back, on Hopper persistent kernels of one wave, which no atomizer cuts. Takes and
prints what lithos-burn does, as far as bench/lib/pairs.py needs it."""
import argparse
import json
import select
import signal
import sys
import time

import torch

p = argparse.ArgumentParser()
p.add_argument("--size", type=int, default=8192)
p.add_argument("--depth", type=int, default=2, help="products in flight")
for ignored in ("--seconds", "--warmup", "--time-scale"):
    p.add_argument(ignored)
for ignored in ("--json", "--gate"):
    p.add_argument(ignored, action="store_true")
o = p.parse_args()
stop = False


def end(*_):
    global stop
    stop = True


signal.signal(signal.SIGTERM, end)
a = torch.randn(o.size, o.size, device="cuda", dtype=torch.bfloat16)
b, c = torch.randn_like(a), torch.empty_like(a)
events = [torch.cuda.Event() for _ in range(o.depth)]
torch.mm(a, b, out=c)
torch.cuda.synchronize()
print("ready", flush=True)
launched = done = counted = 0
begin = None
while not stop:
    if begin is None and select.select([sys.stdin], [], [], 0)[0]:
        sys.stdin.readline()
        begin, counted = time.monotonic(), done
    while launched < done + o.depth:
        torch.mm(a, b, out=c)
        events[launched % o.depth].record()
        launched += 1
    events[done % o.depth].synchronize()
    done += 1
seconds = time.monotonic() - (begin or time.monotonic())
torch.cuda.synchronize()
print(json.dumps({"kernels": done - counted, "kernels_per_s": (done - counted) / seconds if seconds else 0}), flush=True)
