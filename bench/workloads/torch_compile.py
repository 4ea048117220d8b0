"""PyTorch: torch.compile of a block with attention, trained a few steps."""
from common import deterministic_torch, finish

torch = deterministic_torch()


class Block(torch.nn.Module):
    def __init__(self, width=256):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width))

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        return x + self.mlp(x)


model = Block().cuda()
step = torch.compile(model)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
x, target = torch.randn(8, 256, 256).cuda(), torch.randn(8, 256, 256).cuda()
for _ in range(6):
    optimizer.zero_grad(set_to_none=True)
    loss = (step(x) - target).square().mean()
    loss.backward()
    optimizer.step()
finish({"weights": torch.cat([p.flatten() for p in model.parameters()])}, {"loss": loss.item()})
