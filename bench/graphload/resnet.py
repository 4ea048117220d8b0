"""ResNet-50 whose inference is the replay of one CUDA graph, by PyTorch, which destroys the graph once there is an exec. The graph's last kernel
marks the SMs that it runs on. Obeys lines on standard input (a method of Service and its arguments). Argument: images in a batch (4)."""
import ctypes
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "workloads"))
from common import Census, deterministic_torch, to_bytes  # noqa: E402
from driver import obey  # noqa: E402

torch = deterministic_torch()
import hashlib  # noqa: E402

import torchvision  # noqa: E402


class Service:
    def __init__(self, batch="4"):
        self.model = torchvision.models.resnet50(weights=None).cuda().half().eval().to(memory_format=torch.channels_last)
        self.images = torch.randn(int(batch), 3, 224, 224).cuda().half().to(memory_format=torch.channels_last)
        self.census = Census()
        self.census.launch()  # it is loaded by then
        self.graph = self.out = None
        self.capture()

    def forward(self):
        with torch.no_grad():
            self.out = self.model(self.images)

    # ---- what can be asked for

    def capture(self):
        """Anew; the graph before is gone."""
        self.graph = None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.forward()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.forward()
            # some blocks for each SM, and hardly any time
            self.census.launch(ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), blocks=1024, turns=2)
        self.census.count()

    def time(self, times):
        """us of each of so many replays, with a wait after it."""
        us = []
        for _ in range(int(times)):
            begin = time.monotonic()
            self.graph.replay()
            torch.cuda.synchronize()
            us.append(round(1e6 * (time.monotonic() - begin), 2))
        return json.dumps(us)

    def on_sms(self):
        """How many the last kernel ran on since the last time."""
        return self.census.count()

    def hash(self):
        """Of what a replay computes."""
        self.out.zero_()
        self.graph.replay()
        torch.cuda.synchronize()
        return hashlib.sha256(to_bytes(self.out)).hexdigest()[:16]

    def end(self):
        sys.exit(0)


obey(Service(*sys.argv[1:]))
