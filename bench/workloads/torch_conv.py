"""PyTorch: convolutions, forward and backward, in three precisions."""
from common import deterministic_torch, finish

torch = deterministic_torch()
out, values = {}, {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    for stride, groups in ((1, 1), (2, 1), (1, 8)):
        conv = torch.nn.Conv2d(64, 128, 3, stride=stride, padding=1, groups=groups).cuda().to(dtype)
        x = torch.randn(16, 64, 96, 96, dtype=torch.float32).cuda().to(dtype).requires_grad_()
        y = conv(x)
        y.float().square().mean().backward()
        key = f"{str(dtype)[6:]}-{stride}-{groups}"
        out[key] = y
        out[key + "-dx"], out[key + "-dw"] = x.grad, conv.weight.grad
        values[key] = y.float().abs().mean().item()
finish(out, values)
