"""PyTorch: 20 training steps of a small Llama (rotary positions, RMS norm, SwiGLU, causal attention) in bf16, with AdamW."""
from common import deterministic_torch, finish

torch = deterministic_torch()
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

nn, F = torch.nn, torch.nn.functional
LAYERS, WIDTH, HEADS, WORDS, LENGTH, BATCH = 4, 512, 8, 4096, 512, 8


def rotate(x):
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2], device="cuda")[:, None] / 10000 ** (torch.arange(half, device="cuda") / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        y = x.float()
        return (y * (y * y).mean(-1, True).add(1e-5).rsqrt()).to(x.dtype) * self.weight


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = Norm(), Norm()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        q, k, v = (y.reshape(BATCH, LENGTH, HEADS, -1).transpose(1, 2) for y in self.qkv(self.before(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))
        gate, value = self.up(self.between(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * value)


model = nn.Sequential(nn.Embedding(WORDS, WIDTH), *(Layer() for _ in range(LAYERS)), Norm(), nn.Linear(WIDTH, WORDS, bias=False))
model = model.cuda().bfloat16()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
words = torch.randint(0, WORDS, (BATCH, LENGTH + 1)).cuda()
losses = []
# Attention's gradients are added up in any order, but by this kernel where nothing else is allowed.
torch.use_deterministic_algorithms(True)
with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(words[:, :-1]).float().reshape(-1, WORDS), words[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
finish({"weights": torch.cat([p.flatten() for p in model.parameters()]), "losses": torch.stack(losses)}, {"loss": losses[-1].item()})
