"""A Llama written out so that a step of it can be captured as a CUDA graph: what is captured may neither allocate nor ask the card anything, so
keys and values lie in caches of fixed size, and where a step stands is a number on the card. Needs torch alone."""
import torch
from torch.nn import functional as F

# 1.1 billion weights, as the one of transformers in zoo.py
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

    def keep(self, batch, length, fill=torch.zeros):
        """Keys and values of so many places from now on; fill: what makes what lies there until it is written."""
        like = self.words.weight
        for layer in self.layers:
            layer.cache = [fill(batch, layer.s["kv_heads"], length, layer.size, device=like.device, dtype=like.dtype) for _ in range(2)]

    def forward(self, tokens, position=None, mask=None):
        """Logits of all tokens (batch, tokens). With a cache position are their places in it, and mask says which places each attends to."""
        cos, sin = (self.cos, self.sin) if position is None else (self.cos.index_select(0, position), self.sin.index_select(0, position))
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, position, mask)
        return self.head(self.last(x))
