"""PyTorch: several streams with events between them, pinned copies beside kernels, priorities, host functions."""
from common import deterministic_torch, finish

torch = deterministic_torch()
streams = [torch.cuda.Stream(priority=p) for p in (0, -1, 0, -1)]
hosts = [torch.randn(512, 512).pin_memory() for _ in streams]
results = [torch.empty(512, 512).pin_memory() for _ in streams]
events, state = [], []
for round_ in range(20):
    for i, s in enumerate(streams):
        with torch.cuda.stream(s):
            if events:
                s.wait_event(events[(round_ + i) % len(events)])
            x = hosts[i].to("cuda", non_blocking=True)
            y = torch.tanh(x @ x.t() / 512)
            for _ in range(5):
                y = torch.softmax(y * 1.5, -1) + 0.1 * x
            results[i].copy_(y, non_blocking=True)
            event = torch.cuda.Event()
            event.record(s)
            events = events[-7:] + [event]
torch.cuda.synchronize()
big = torch.zeros(1 << 20, device="cuda")
for s in streams:
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        big = big * 0.5 + 1
    torch.cuda.current_stream().wait_stream(s)
finish({**{f"stream{i}": r for i, r in enumerate(results)}, "chain": big}, {"sum": sum(r.sum().item() for r in results)})
