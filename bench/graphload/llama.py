#!/usr/bin/env python3
"""A Llama of 1.1 billion random weights whose every step is the replay of one CUDA graph: a token of each of a batch (decode), or a training step.

The network is that of bench/models/static_llama.py.

With its weights on the card it prints `READY`, and obeys lines on standard input: `capture` (some steps by themselves, then one into a graph;
prints `CAPTURED`), `round` (--steps replays; prints the us of one), `result` (prints `RESULT {...}`, and ends at the next line)."""
import argparse
import pathlib
import sys

for folder in ("workloads", "models"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
from common import deterministic_torch, finish  # noqa: E402

torch = deterministic_torch()
F = torch.nn.functional
from static_llama import SIZES, TINY, Llama  # noqa: E402


def captured(step, device, warmup):
    """step() as a graph, after some by itself on a stream of their own: what a framework does, and what lithosd learns from."""
    if device == "cpu":
        step()
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.empty_cache()  # the graph has a pool of its own, and others are on the card
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def timed(replay, device, steps):
    """us a step."""
    if device == "cpu":
        for _ in range(steps):
            replay()
        return 0.0
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(steps):
        replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3 / steps


def decode(o, model, device):
    s, batch, length = o.sizes, o.batch, o.context + o.steps
    model.keep(batch, length, torch.randn)
    first = torch.randint(0, s["words"], (batch, 1), device=device)
    token, position = first.clone(), torch.full((1,), o.context, dtype=torch.long, device=device)
    places, said = torch.arange(length, device=device), torch.zeros(length, batch, dtype=torch.long, device=device)

    @torch.no_grad()
    def step():
        logits = model(token, position, (places <= position)[None, None, None, :])[:, -1]
        token.copy_(logits.argmax(-1, keepdim=True))
        said.index_copy_(0, position, token.T)
        position.add_(1).clamp_(max=length - 1)

    replay = captured(step, device, o.warmup)

    def one_round():
        token.copy_(first)
        position.fill_(o.context)
        return timed(replay, device, o.steps)
    return {"tokens": said}, one_round


def training(o, model, device):
    data = torch.randint(0, o.sizes["words"], (o.batch, o.seq + 1), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, capturable=device != "cpu")
    loss = torch.zeros((), device=device)

    def step():
        optimizer.zero_grad(set_to_none=True)
        out = F.cross_entropy(model(data[:, :-1]).flatten(0, 1).float(), data[:, 1:].flatten())
        out.backward()
        optimizer.step()
        loss.copy_(out.detach())

    replay = captured(step, device, o.warmup)
    return {"loss": loss, **{f"weights {i}": p for i, p in enumerate(model.parameters())}}, lambda: timed(replay, device, o.steps)


def obey(make):
    """make() captures: (what is computed, by name; a function that runs a round and returns the us of a step)."""
    tensors, one_round = None, None
    for line in sys.stdin:
        word = line.strip()
        if word == "capture":
            tensors, one_round = make()
            torch.cuda.synchronize()
            print("CAPTURED", flush=True)
        elif word == "round" and one_round:
            print(one_round(), flush=True)
        elif word == "result" and tensors:
            torch.cuda.synchronize()
            finish(tensors)
            return
        else:
            sys.exit(f"llama.py: cannot do {word!r} now")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("job", choices=("decode", "training"))
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--seq", type=int, default=1024, help="training: tokens of a sample (default: %(default)s)")
    p.add_argument("--context", type=int, default=0, help="decode: tokens in the cache before the first step (default: %(default)s)")
    p.add_argument("--steps", type=int, default=128, help="of a round (default: %(default)s)")
    p.add_argument("--warmup", type=int, default=12, help="steps before the capture (default: %(default)s)")
    p.add_argument("--tiny", action="store_true", help="a few small layers, to try the code")
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    o = p.parse_args()
    o.sizes = TINY if o.tiny else SIZES
    dtype = torch.bfloat16 if o.device == "cuda" else torch.float32
    with torch.device(o.device):
        model = Llama(o.sizes, o.context + o.steps if o.job == "decode" else o.seq, o.device, dtype)
    model = model.to(o.device, dtype)

    def make():
        return (decode if o.job == "decode" else training)(o, model, o.device)
    if o.device == "cpu":
        tensors, one_round = make()
        one_round()
        print({k: tuple(v.shape) for k, v in tensors.items()})
        return
    torch.cuda.synchronize()
    print("READY", flush=True)
    obey(make)


main()
