"""PyTorch: 20 steps of ResNet-50 training with SGD."""
from common import deterministic_torch, finish

torch = deterministic_torch()
import torchvision  # noqa: E402

model = torchvision.models.resnet50(weights=None).cuda().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
images = torch.randn(32, 3, 160, 160).cuda().to(memory_format=torch.channels_last)
labels = torch.randint(0, 1000, (32,)).cuda()
losses = []
for _ in range(20):
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())
finish({"weights": torch.cat([p.flatten() for p in model.parameters()]), "losses": torch.stack(losses)}, {"loss": losses[-1].item()})
