#!/usr/bin/env python3
"""A Llama of 1.1 billion random weights whose every step is the replay of one CUDA graph: a token of each of a batch (decode), or a training step.

The sizes are those of bench/models. Written out here, since what is captured must neither allocate nor ask the card anything: keys and
values lie in a cache of fixed size, and where a step stands is a number on the card.

With its weights on the card it prints `READY`, and obeys lines on standard input: `capture` (some steps by themselves, then one into a graph;
prints `CAPTURED`), `round` (--steps replays; prints the us of one), `result` (prints `RESULT {...}`, and ends at the next line)."""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "workloads"))
from common import deterministic_torch, finish  # noqa: E402

torch = deterministic_torch()
F = torch.nn.functional
SIZES = {"width": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "inner": 8192, "words": 32000}
TINY = {"width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "inner": 128, "words": 512}


class Norm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


def turn(x, cos, sin):
    """Rotary embedding: x is (batch, heads, tokens, size), cos and sin (tokens, size / 2)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(torch.nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s, self.size = s, s["width"] // s["heads"]

        def linear(a, b):
            return torch.nn.Linear(a, b, bias=False)
        self.q, self.o = linear(s["width"], s["width"]), linear(s["width"], s["width"])
        self.k, self.v = (linear(s["width"], s["kv_heads"] * self.size) for _ in range(2))
        self.gate, self.up, self.down = linear(s["width"], s["inner"]), linear(s["width"], s["inner"]), linear(s["inner"], s["width"])
        self.before, self.between = Norm(s["width"]), Norm(s["width"])
        self.cache = None

    def heads(self, x, count):
        return x.view(x.shape[0], x.shape[1], count, self.size).transpose(1, 2)

    def forward(self, x, cos, sin, position, mask):
        y = self.before(x)
        q = turn(self.heads(self.q(y), self.s["heads"]), cos, sin)
        k = turn(self.heads(self.k(y), self.s["kv_heads"]), cos, sin)
        v = self.heads(self.v(y), self.s["kv_heads"])
        if self.cache:
            for kept, new in zip(self.cache, (k, v)):
                kept.index_copy_(2, position, new)
            k, v = self.cache
        group = self.s["heads"] // self.s["kv_heads"]
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), attn_mask=mask,
                                           is_causal=mask is None)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        y = self.between(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(torch.nn.Module):
    def __init__(self, s, length, device, dtype):
        super().__init__()
        self.words = torch.nn.Embedding(s["words"], s["width"])
        self.layers = torch.nn.ModuleList(Layer(s) for _ in range(s["layers"]))
        self.last, self.head = Norm(s["width"]), torch.nn.Linear(s["width"], s["words"], bias=False)
        size = s["width"] // s["heads"]
        angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)[None]
        self.cos, self.sin = angle.cos().to(device, dtype), angle.sin().to(device, dtype)

    def forward(self, tokens, position=None, mask=None):
        cos, sin = (self.cos, self.sin) if position is None else (self.cos.index_select(0, position), self.sin.index_select(0, position))
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, position, mask)
        return self.head(self.last(x))


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


def decode(o, model, device, dtype):
    s, batch, length = o.sizes, o.batch, o.context + o.steps
    for layer in model.layers:
        layer.cache = [torch.randn(batch, s["kv_heads"], length, layer.size, device=device, dtype=dtype) for _ in range(2)]
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


def training(o, model, device, dtype):
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
        return (decode if o.job == "decode" else training)(o, model, o.device, dtype)
    if o.device == "cpu":
        tensors, one_round = make()
        one_round()
        print({k: tuple(v.shape) for k, v in tensors.items()})
        return
    torch.cuda.synchronize()
    print("READY", flush=True)
    obey(make)


main()
