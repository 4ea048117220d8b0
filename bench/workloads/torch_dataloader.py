"""PyTorch: DataLoader workers (forked, and spawned ones that use the GPU themselves) feeding a training loop."""
from common import deterministic_torch, finish

torch = deterministic_torch()


class Numbers(torch.utils.data.Dataset):
    def __init__(self, on_gpu):
        self.on_gpu = on_gpu

    def __len__(self):
        return 256

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        x = torch.randn(128, generator=g)
        if self.on_gpu:
            x = torch.sin(x.cuda()).cpu()
        return x, x.sum()


def train(on_gpu):
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(Numbers(on_gpu), batch_size=32, num_workers=2 if on_gpu else 4, pin_memory=True,
                                         multiprocessing_context="spawn" if on_gpu else "fork")
    for x, y in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = (model(x.cuda(non_blocking=True)).squeeze(1) - y.cuda(non_blocking=True)).square().mean()
        loss.backward()
        optimizer.step()
    return torch.cat([p.flatten() for p in model.parameters()]), loss.item()


if __name__ == "__main__":
    forked, loss_forked = train(False)
    spawned, loss_spawned = train(True)
    finish({"forked": forked, "spawned": spawned}, {"forked": loss_forked, "spawned": loss_spawned})
