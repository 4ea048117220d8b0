"""PyTorch: a few steps of ResNet-18 training with Adam."""
from common import deterministic_torch, finish

torch = deterministic_torch()
import torchvision  # noqa: E402

model = torchvision.models.resnet18(weights=None).cuda()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
images, labels = torch.randn(32, 3, 128, 128).cuda(), torch.randint(0, 1000, (32,)).cuda()
losses = []
for _ in range(8):
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
finish({"weights": torch.cat([p.flatten() for p in model.parameters()])}, {"loss": losses[-1]})
