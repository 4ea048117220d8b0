"""The networks that LithOS is measured with, with random weights: what one iteration of each does.

build(options) gives a function of the batch size that runs one iteration and returns when its result is on the host.
Needs torch, and torchvision (resnet50, vgg19) or transformers (bert, llama). Nothing is downloaded."""
import contextlib
import os
import time

# jobs: what a model can be made to do, the first is the default; dtype, batch, seq: what is taken where nothing is said.
MODELS = {
    "resnet50": {"jobs": ("inference", "training"), "dtype": "fp32", "batch": {"inference": 8, "training": 32}},
    "vgg19": {"jobs": ("training", "inference"), "dtype": "fp32", "batch": {"inference": 8, "training": 32}},
    "bert": {"jobs": ("inference", "training"), "dtype": "bf16", "batch": {"inference": 8, "training": 8}, "seq": 384},
    "llama": {"jobs": ("prefill", "decode", "training"), "dtype": "bf16",
              "batch": {"prefill": 1, "decode": 1, "training": 4}, "seq": 1024},
}
IMAGE, CLASSES, LLAMA_VOCAB, BERT_VOCAB = 224, 1000, 32000, 30522
# For a look at the code without a card: layers and widths that a CPU computes.
TINY = {"image": 32, "bert": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
        "llama": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                  "intermediate_size": 128}}


def complete(o):
    """Fills in what the command line left open. ValueError: what does not go together."""
    spec = MODELS[o.model]
    o.job = o.job or spec["jobs"][0]
    if o.job not in spec["jobs"]:
        raise ValueError(f"{o.model} knows the jobs {', '.join(spec['jobs'])}, not {o.job}")
    o.dtype = o.dtype or spec["dtype"]
    o.seq = o.prompt if o.job == "decode" else o.seq or spec.get("seq")
    o.batch = o.batch or str(spec["batch"][o.job])
    if o.compile and o.job == "decode":
        raise ValueError("decoding is run eager: its cache grows by a token a step, and each length would be compiled")
    if o.graph and (o.job == "training" or "-" in o.batch):
        raise ValueError("--graph takes inference, prefill or decoding of one batch size")


def dtype_of(torch, o):
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[o.dtype]


def images(torch, o):
    """(network, inputs of a batch on the host, target classes)"""
    import torchvision
    size = TINY["image"] if o.tiny else IMAGE
    network = getattr(torchvision.models, o.model)(weights=None)
    layout = {"memory_format": torch.channels_last} if o.channels_last else {}
    inputs = torch.randn(o.batch_max, 3, size, size).to(**layout)
    return network.to(**layout), inputs, torch.randint(0, CLASSES, (o.batch_max,))


def bert(torch, o):
    """BERT-large with a classifier on top."""
    from transformers import BertConfig, BertForSequenceClassification
    sizes = TINY["bert"] if o.tiny else {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                                         "intermediate_size": 4096}
    network = BertForSequenceClassification(BertConfig(vocab_size=BERT_VOCAB, num_labels=2, **sizes))
    return network, torch.randint(0, BERT_VOCAB, (o.batch_max, o.seq)), torch.randint(0, 2, (o.batch_max,))


def llama(torch, o):
    """A Llama of 1.1 billion weights."""
    if o.job == "decode" and o.graph:
        return static_llama(torch, o)
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = TINY["llama"] if o.tiny else {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
                                          "num_key_value_heads": 8, "intermediate_size": 8192}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=LLAMA_VOCAB, max_position_embeddings=max(2048, o.seq + o.tokens), **sizes))
    return network, torch.randint(0, LLAMA_VOCAB, (o.batch_max, o.seq)), None


def static_llama(torch, o):
    """The same sizes, to decode with by CUDA graphs."""
    from static_llama import SIZES, Llama
    from static_llama import TINY as SMALL
    sizes = SMALL if o.tiny else SIZES
    return Llama(sizes, o.seq + o.tokens, o.device, dtype_of(torch, o)), torch.randint(0, sizes["words"], (o.batch_max, o.seq)), None


MAKE = {"resnet50": images, "vgg19": images, "bert": bert, "llama": llama}


class Runner:
    """A network on its device, and one iteration of its job."""

    def __init__(self, o):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        self.torch, self.o = torch, o
        torch.manual_seed(o.seed)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.device = torch.device(o.device)
        self.dtype = dtype_of(torch, o)
        with self.device:  # weights are made where they will be: a tenth of the time
            network, inputs, targets = MAKE[o.model](torch, o)
        inputs, targets = inputs.cpu(), None if targets is None else targets.cpu()
        training = o.job == "training"
        # Image networks train with weights of 32 bits under autocast, the others in their own type.
        self.mixed = training and o.model in ("resnet50", "vgg19") and self.dtype != torch.float32
        network = network.to(self.device)
        if not self.mixed:
            network = network.to(self.dtype)
            inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        self.network = network.train(training)
        self.inputs, self.targets = self.keep(inputs), None if targets is None else self.keep(targets)
        self.call = torch.compile(self.network) if o.compile else self.network
        self.pieces_us = []  # of decoding, what each token took: whoever measures empties it
        self.asked_ns = 0  # when an inference that is no graph had made its launches, and began to wait for them
        self.optimizer = None
        if training:
            make = torch.optim.SGD if o.model in ("resnet50", "vgg19") else torch.optim.AdamW
            self.optimizer = make(self.network.parameters(), lr=1e-4)
        self.step = {"inference": self.infer, "prefill": self.infer, "decode": self.decode, "training": self.train}[o.job]
        if o.graph:
            self.step = self.graphed()

    def keep(self, tensor):
        """Where inputs lie between iterations: in pinned memory, from which each copies its own, or on the card."""
        if self.o.resident:
            return tensor.to(self.device)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def take(self, tensor, batch):
        return tensor[:batch].to(self.device, non_blocking=True)

    def synchronize(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def forward(self, inputs):
        if self.o.model == "llama":
            # the last token's logits: what the next token is chosen from
            return self.call(input_ids=inputs, use_cache=False, logits_to_keep=1).logits
        return self.call(input_ids=inputs).logits if self.o.model == "bert" else self.call(inputs)

    def infer(self, batch):
        with self.torch.inference_mode():
            result = self.forward(self.take(self.inputs, batch)).argmax(-1)
            self.asked_ns = time.monotonic_ns()
            result.cpu()

    def decode(self, batch):
        """A prompt, then tokens one by one, each read back as for somebody who waits for it."""
        with self.torch.inference_mode():
            ids, cache = self.take(self.inputs, batch), None
            begin = time.monotonic_ns()
            for _ in range(self.o.tokens):
                out = self.call(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
                ids.tolist()
                end = time.monotonic_ns()
                self.pieces_us.append((end - begin) / 1e3)
                begin = end

    def loss(self, batch):
        inputs = self.take(self.inputs, batch)
        if self.o.model == "llama":
            return self.call(input_ids=inputs, labels=inputs, use_cache=False).loss
        targets = self.take(self.targets, batch)
        if self.o.model == "bert":
            return self.call(input_ids=inputs, labels=targets).loss
        return self.torch.nn.functional.cross_entropy(self.call(inputs), targets)

    def train(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        with self.torch.autocast(self.device.type, dtype=self.dtype) if self.mixed else contextlib.nullcontext():
            loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def captured(self, body):
        """body() as a CUDA graph, after some runs on a stream of its own: (the graph, what the captured one returned)."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                body()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = body()
        return graph, out

    def graphed(self):
        """Inference of one batch size as one CUDA graph, its input and output at fixed places."""
        if self.o.job == "decode":
            return self.graphed_decode()
        place = self.inputs.to(self.device)
        with self.torch.inference_mode():
            graph, result = self.captured(lambda: self.forward(place).argmax(-1))

        def step(_):
            place.copy_(self.inputs, non_blocking=True)
            graph.replay()
            result.cpu()
        return step

    def graphed_decode(self):
        """A prompt as one CUDA graph, a token as another, as servers run it; each token is read back."""
        torch, prompt = self.torch, self.o.seq
        ids = self.inputs.to(self.device)
        with torch.inference_mode(), self.device:
            self.network.keep(self.o.batch_max, prompt + self.o.tokens)
            token = torch.zeros(self.o.batch_max, 1, dtype=torch.long)
            places, position = torch.arange(prompt + self.o.tokens), torch.full((1,), prompt)
            begin = places[:prompt]

            def first():
                logits = self.network(ids, begin, (places <= begin[:, None])[None, None])
                token.copy_(logits[:, -1].argmax(-1, keepdim=True))
                position.fill_(prompt)

            def following():
                logits = self.network(token, position, (places <= position)[None, None, None, :])
                token.copy_(logits[:, -1].argmax(-1, keepdim=True))
                position.add_(1).clamp_(max=prompt + self.o.tokens - 1)

            (of_prompt, _), (of_token, _) = self.captured(first), self.captured(following)

        def step(_):
            ids.copy_(self.inputs, non_blocking=True)
            of_prompt.replay()
            token.tolist()
            for _ in range(self.o.tokens - 1):
                of_token.replay()
                token.tolist()
        return step

    def profile(self, body, path):
        """Runs body() under PyTorch's profiler (CUPTI) and writes what it saw of the card, in its JSON format, to path."""
        torch = self.torch
        activities = [torch.profiler.ProfilerActivity.CUDA if self.device.type == "cuda" else torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profiler:
            body()
            self.synchronize()
        profiler.export_chrome_trace(path)

    def versions(self):
        return {"torch": self.torch.__version__}
