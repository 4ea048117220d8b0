"""Triton: a matrix product with dot, a softmax and an addition, compiled at run time."""
from common import deterministic_torch, finish

torch = deterministic_torch()
import triton  # noqa: E402
import triton.language as tl  # noqa: E402


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, float("-inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * columns + i, e / tl.sum(e, 0), i < columns)


@triton.jit
def matmul(a, b, c, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for k0 in range(0, n, BLOCK):
        k = k0 + tl.arange(0, BLOCK)
        acc += tl.dot(tl.load(a + i[:, None] * n + k[None, :]), tl.load(b + k[:, None] * n + j[None, :]))
    tl.store(c + i[:, None] * n + j[None, :], acc)


x, y = torch.randn(1 << 20).cuda(), torch.randn(1 << 20).cuda()
total = torch.empty_like(x)
add[(triton.cdiv(x.numel(), 1024),)](x, y, total, x.numel(), BLOCK=1024)
rows = torch.randn(2048, 1000).cuda()
soft = torch.empty_like(rows)
softmax[(2048,)](rows, soft, 1000, BLOCK=1024)
a, b = torch.randn(1024, 1024).cuda().half(), torch.randn(1024, 1024).cuda().half()
c = torch.empty(1024, 1024, device="cuda", dtype=torch.float32)
matmul[(1024 // 64, 1024 // 64)](a, b, c, 1024, BLOCK=64)
torch.cuda.synchronize()
finish({"add": total, "softmax": soft, "matmul": c}, {"matmul": c.abs().mean().item()})
