"""PyTorch as a way to the closed libraries: cuBLAS in all precisions, cuFFT, cuSOLVER, cuSPARSE, sorting, random numbers."""
from common import deterministic_torch, finish

torch = deterministic_torch()
out = {}
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    a, b = torch.randn(1024, 768).cuda().to(dtype), torch.randn(768, 1280).cuda().to(dtype)
    out[f"gemm-{str(dtype)[6:]}"] = a @ b
out["gemm-large"] = torch.randn(4096, 4096).cuda().bfloat16() @ torch.randn(4096, 4096).cuda().bfloat16()
out["batched"] = torch.randn(32, 128, 64).cuda() @ torch.randn(32, 64, 96).cuda()
m = torch.randn(256, 256, dtype=torch.float64).cuda()
spd = m @ m.t() + 256 * torch.eye(256, dtype=torch.float64, device="cuda")
out["cholesky"], out["solve"] = torch.linalg.cholesky(spd), torch.linalg.solve(spd, m)
out["singular values"], out["eigenvalues"] = torch.linalg.svdvals(m), torch.linalg.eigvalsh(spd)
out["qr"] = torch.linalg.qr(m)[1]
out["fft"] = torch.view_as_real(torch.fft.fft2(torch.randn(64, 256, 256).cuda()))
sparse = torch.randn(512, 512).relu().to_sparse_csr().cuda()
out["sparse"] = sparse @ torch.randn(512, 64).cuda()
out["sort"] = torch.sort(torch.randn(1 << 20).cuda())[0]
out["random"] = torch.rand(1 << 16, device="cuda")
q, k, v = (torch.randn(4, 8, 512, 64).cuda().half() for _ in range(3))
out["attention"] = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
lstm = torch.nn.LSTM(64, 128, 2).cuda()
out["lstm"] = lstm(torch.randn(32, 16, 64).cuda())[0]
values = {name: t.float().abs().mean().item() for name, t in out.items()}
finish(out, values)
