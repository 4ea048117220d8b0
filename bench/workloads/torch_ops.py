"""PyTorch, operator by operator: forward, and backward where there is one. Large enough that most kernels have several waves."""
import sys

from common import deterministic_torch, finish

torch = deterministic_torch()
F, L = torch.nn.functional, torch.linalg
N = 1 << 20


def t(*shape, grad=True, low=None, dtype=torch.float32):
    x = torch.randn(*shape, dtype=dtype)
    if low is not None:
        x = x.abs() + low
    return x.cuda().requires_grad_(grad)


def i(high, *shape):
    return torch.randint(0, high, shape).cuda()


a, b, c = t(N), t(N), t(N, low=0.1)
m1, m2, square = t(1536, 1024), t(1024, 1280), t(512, 512)
im, w3, w1 = t(16, 64, 64, 64), t(96, 64, 3, 3), t(96, 64, 1, 1)
seq, rows = t(64, 512, 96), t(8192, 768)
q, k, v = (t(4, 8, 1024, 64, dtype=torch.float16) for _ in range(3))
spd = (square.detach() @ square.detach().t() + 512 * torch.eye(512, device="cuda")).requires_grad_()
labels, index, mask = i(768, 8192), i(8192, 20000), (torch.rand(N) > 0.5).cuda()
table = t(5000, 256)
distinct = torch.randperm(N)[:50000].cuda()  # twice the same, and its gradient would be summed in any order

# name: (function, inputs). What it gives is summed with fixed weights for the backward pass.
OPS = {
    # elementwise
    "add": (torch.add, a, b), "sub": (torch.sub, a, b), "mul": (torch.mul, a, b), "div": (torch.div, a, c),
    "pow": (lambda x: x.pow(3), a), "exp": (lambda x: (0.1 * x).exp(), a), "log": (torch.log, c), "sqrt": (torch.sqrt, c),
    "rsqrt": (torch.rsqrt, c), "sin": (torch.sin, a), "cos": (torch.cos, a), "tan": (torch.tan, a), "tanh": (torch.tanh, a),
    "sigmoid": (torch.sigmoid, a), "relu": (F.relu, a), "gelu": (F.gelu, a), "silu": (F.silu, a), "elu": (F.elu, a),
    "softplus": (F.softplus, a), "mish": (F.mish, a), "hardswish": (F.hardswish, a), "leaky relu": (F.leaky_relu, a),
    "abs": (torch.abs, a), "neg": (torch.neg, a), "erf": (torch.erf, a), "atan": (torch.atan, a), "lgamma": (torch.lgamma, c),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), a), "where": (lambda x, y: torch.where(mask, x, y), a, b),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), a, b), "addcmul": (torch.addcmul, a, b, c), "maximum": (torch.maximum, a, b),
    "fmod": (lambda x: torch.fmod(x, 0.7), a), "atan2": (torch.atan2, a, c), "hypot": (torch.hypot, a, c),
    "to half and back": (lambda x: x.half().float(), a), "dropout off": (lambda x: F.dropout(x, 0.5, False), a),
    # reductions and scans
    "sum": (torch.sum, a), "mean of rows": (lambda x: x.mean(1), rows), "var": (lambda x: x.var(0), rows),
    "std": (lambda x: x.std(1), rows), "norm": (lambda x: x.norm(dim=1), rows), "prod": (lambda x: (1 + 0.001 * x).prod(1), rows),
    "max of rows": (lambda x: x.max(1).values, rows), "min of columns": (lambda x: x.min(0).values, rows),
    "amax": (lambda x: x.amax(1), rows), "logsumexp": (lambda x: x.logsumexp(1), rows),
    "cumsum": (lambda x: x.cumsum(1), rows), "cumprod": (lambda x: (1 + 0.001 * x).cumprod(1), rows),
    "cummax": (lambda x: x.cummax(1).values, rows), "argmax": (lambda x: x.argmax(1), rows.detach()),
    "any": (lambda x: (x > 3).any(1), rows.detach()), "count": (lambda x: (x > 0).sum(0), rows.detach()),
    "sort": (lambda x: x.sort(1).values, rows), "topk": (lambda x: x.topk(16, 1).values, rows),
    "kthvalue": (lambda x: x.kthvalue(100, 1).values, rows), "median": (lambda x: x.median(1).values, rows),
    "unique": (torch.unique, i(3000, N)), "bincount": (lambda x: torch.bincount(x, minlength=3000), i(3000, N)),
    "histc": (lambda x: torch.histc(x, 100, -4, 4), a.detach()),
    # normalization, softmax, losses
    "softmax": (lambda x: x.softmax(1), rows), "log softmax": (lambda x: x.log_softmax(1), rows),
    "layer norm": (lambda x: F.layer_norm(x, (768,)), rows), "rms norm": (lambda x: x * (x * x).mean(1, True).rsqrt(), rows),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), im), "group norm": (lambda x: F.group_norm(x, 8), im),
    "instance norm": (F.instance_norm, im), "cross entropy": (lambda x: F.cross_entropy(x, labels), rows),
    "mse": (F.mse_loss, a, b), "smooth l1": (F.smooth_l1_loss, a, b), "kl": (lambda x, y: F.kl_div(x.log_softmax(0), y.softmax(0)), a, b),
    "bce": (lambda x: F.binary_cross_entropy_with_logits(x, mask.float()), a), "cosine": (F.cosine_similarity, rows, rows),
    # products
    "matmul": (torch.matmul, m1, m2), "matmul half": (lambda x, y: x.half() @ y.half(), m1, m2),
    "matmul bf16": (lambda x, y: x.bfloat16() @ y.bfloat16(), m1, m2), "matmul double": (lambda x, y: x.double() @ y.double(), m1, m2),
    "bmm": (lambda x: x @ x.transpose(1, 2), seq), "addmm": (torch.addmm, t(1280), m1, m2), "mv": (lambda x: x @ x[0], square),
    "linear": (F.linear, rows, t(512, 768)), "einsum": (lambda x: torch.einsum("bsi,bti->bst", x, x), seq),
    "outer": (lambda x: torch.outer(x[:2048], x[:2048]), a), "baddbmm": (lambda x: torch.baddbmm(x @ x.transpose(1, 2), x, x.transpose(1, 2)), seq),
    "attention": (F.scaled_dot_product_attention, q, k, v),
    "causal attention": (lambda x, y, z: F.scaled_dot_product_attention(x, y, z, is_causal=True), q, k, v),
    # convolutions and pools
    "conv2d": (lambda x, w: F.conv2d(x, w, padding=1), im, w3), "conv2d 1x1": (F.conv2d, im, w1),
    "conv2d strided": (lambda x, w: F.conv2d(x, w, stride=2), im, w3), "conv2d half": (lambda x, w: F.conv2d(x.half(), w.half(), padding=1), im, w3),
    "conv2d grouped": (lambda x, w: F.conv2d(x, w[:64, :1], padding=1, groups=64), im, w3),
    "conv transpose": (lambda x, w: F.conv_transpose2d(x, w.transpose(0, 1)), im, w3),
    "conv1d": (lambda x: F.conv1d(x, x[:16, :, :5].contiguous()), seq), "conv3d": (F.conv3d, t(2, 8, 16, 32, 32), t(16, 8, 3, 3, 3)),
    "max pool": (lambda x: F.max_pool2d(x, 2), im), "avg pool": (lambda x: F.avg_pool2d(x, 3), im),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, 1), im), "pixel shuffle": (lambda x: F.pixel_shuffle(x, 4), im),
    "nearest": (lambda x: F.interpolate(x.detach(), scale_factor=2), im), "unfold": (lambda x: F.unfold(x.detach(), 3), im),
    # moving things about
    "cat": (lambda x, y: torch.cat([x, y]), a, b), "stack": (lambda x, y: torch.stack([x, y], 1), a, b),
    "transpose": (lambda x: x.t().contiguous(), rows), "permute": (lambda x: x.permute(0, 2, 3, 1).contiguous(), im),
    "flip": (lambda x: x.flip(1), rows), "roll": (lambda x: x.roll(7, 1), rows), "pad": (lambda x: F.pad(x, (3, 3, 3, 3)), im),
    "repeat": (lambda x: x.repeat(2, 2), square), "tril": (torch.tril, square), "diag": (lambda x: x.diagonal().clone(), square),
    "index select": (lambda x: x.index_select(0, index), rows), "gather": (lambda x: x.gather(1, i(768, 8192, 64)), rows),
    "take": (lambda x: x.take(distinct), a), "embedding": (lambda x: F.embedding(i(5000, 64, 128), x), table),
    "masked fill": (lambda x: x.masked_fill(mask, 0), a), "masked select": (lambda x: x[mask], a),
    "scatter add": (lambda x: torch.zeros(768, device="cuda").index_add(0, labels, x[:, 0]), rows.detach()),
    "nonzero": (lambda x: (x > 2).nonzero(), rows.detach()), "one hot": (lambda x: F.one_hot(x, 768), labels),
    # linear algebra, spectra, random numbers
    "cholesky": (L.cholesky, spd), "solve": (lambda x: L.solve(x, square.detach()), spd), "inverse": (L.inv, spd),
    "determinant": (lambda x: L.slogdet(x)[1], spd), "qr": (lambda x: L.qr(x)[1], square.detach()),
    "svd": (lambda x: L.svdvals(x), square.detach()), "eigenvalues": (lambda x: L.eigvalsh(x), spd.detach()),
    "fft": (lambda x: torch.view_as_real(torch.fft.fft(x)), rows), "rfft2": (lambda x: torch.view_as_real(torch.fft.rfft2(x)), im),
    "stft": (lambda x: torch.view_as_real(torch.stft(x[:200000], 512, window=torch.ones(512, device="cuda"), return_complex=True)), a.detach()),
    "rand": (lambda: torch.rand(N, device="cuda"),), "randn": (lambda: torch.randn(N, device="cuda"),),
    "randperm": (lambda: torch.randperm(100000, device="cuda"),), "bernoulli": (lambda x: torch.bernoulli(x.detach().sigmoid()), a),
    "lstm": (lambda x: LSTM(x)[0], t(64, 16, 128)), "gru": (lambda x: GRU(x)[0], t(64, 16, 128)),
    "transformer layer": (lambda x: LAYER(x), t(128, 8, 256)),
}
LSTM, GRU = torch.nn.LSTM(128, 128, 2).cuda(), torch.nn.GRU(128, 128).cuda()
LAYER = torch.nn.TransformerEncoderLayer(256, 8, 512, dropout=0).cuda()
out, failed = {}, []
for name, (function, *inputs) in OPS.items():
    try:
        torch.manual_seed(7)
        result = function(*inputs)
        out[name] = result.detach()
        leaves = [x for x in inputs if torch.is_tensor(x) and x.requires_grad]
        if leaves and result.requires_grad:
            weights = torch.linspace(0.5, 1.5, result.numel(), device="cuda").reshape(result.shape).to(result.dtype)
            for n, g in enumerate(torch.autograd.grad(result, leaves, weights, allow_unused=True)):
                if g is not None:
                    out[f"{name}, gradient {n}"] = g
    except RuntimeError as e:  # an operator that this version of PyTorch or the card has not
        failed.append(f"{name}: {str(e).splitlines()[0]}")
for line in failed:
    print(f"torch_ops: {line}", file=sys.stderr)
finish(out, {"operators": len(OPS) - len(failed), "tensors": len(out)})
