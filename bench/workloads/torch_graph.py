"""PyTorch: a training step captured in a CUDA graph and replayed, and a graph of an inference."""
from common import deterministic_torch, finish

torch = deterministic_torch()
model = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 512)).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
static_x, static_y = torch.randn(256, 512, device="cuda"), torch.randn(256, 512, device="cuda")
side = torch.cuda.Stream()
side.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(side):
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(static_x), static_y).backward()
        optimizer.step()
torch.cuda.current_stream().wait_stream(side)
graph = torch.cuda.CUDAGraph()
optimizer.zero_grad(set_to_none=True)
with torch.cuda.graph(graph):
    loss = torch.nn.functional.mse_loss(model(static_x), static_y)
    loss.backward()
    optimizer.step()
batches = [torch.randn(256, 512).cuda() for _ in range(30)]
for batch in batches:
    static_x.copy_(batch)
    graph.replay()
torch.cuda.synchronize()
inference = torch.cuda.CUDAGraph()
with torch.no_grad(), torch.cuda.graph(inference):
    out = model(static_x)
inference.replay()
torch.cuda.synchronize()
finish({"weights": torch.cat([p.flatten() for p in model.parameters()]), "out": out}, {"loss": loss.item()})
