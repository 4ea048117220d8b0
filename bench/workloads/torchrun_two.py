"""PyTorch: torchrun with two processes on one GPU (gloo: NCCL refuses two ranks on one card), data-parallel training."""
import os
import pathlib
import subprocess
import sys
import tempfile

from common import deterministic_torch, finish


def rank():
    torch = deterministic_torch()
    import torch.distributed as dist
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 64)).cuda()
    parallel = torch.nn.parallel.DistributedDataParallel(model, device_ids=[0])
    optimizer = torch.optim.SGD(parallel.parameters(), lr=1e-2)
    g = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(10):
        x = torch.randn(128, 256, generator=g).cuda()
        optimizer.zero_grad(set_to_none=True)
        loss = parallel(x).square().mean()
        loss.backward()
        optimizer.step()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()]).cpu()
    pathlib.Path(os.environ["LITHOS_BENCH_RANKS"], f"rank{dist.get_rank()}").write_bytes(flat.numpy().tobytes())
    dist.destroy_process_group()


def main():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, LITHOS_BENCH_RANKS=folder, OMP_NUM_THREADS="1")
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__], env=env,
                       stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
        weights = {f"rank{r}": pathlib.Path(folder, f"rank{r}").read_bytes() for r in (0, 1)}
    if weights["rank0"] != weights["rank1"]:
        raise SystemExit("the two ranks ended with different weights")
    finish(weights)


rank() if "LOCAL_RANK" in os.environ else main()
