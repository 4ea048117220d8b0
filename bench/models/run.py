#!/usr/bin/env python3
"""Runs a model: ResNet-50, VGG-19, BERT-large or a Llama of 1.1 billion weights, with random weights; iteration by iteration.

  run.py --model resnet50 --job inference --batch 1-16 --seconds 10      each iteration with a batch of its own, at random
  run.py --model bert --job training --compile --iterations 50
  run.py --model llama --job decode --rate 2 --seconds 30                requests as they come, two a second

Prints one JSON object: what was run, start_ns (CLOCK_MONOTONIC), us and batch of each iteration, and p50, p99 and rates of
them; of eager inference host_us besides, how long each took to have made its launches. An iteration includes what a program does
with it: inputs copied from pinned memory (--resident: they lie on the card), the result read back. With --rate, us counts from
when the request was due. SIGTERM ends it early.

--gate: prints "ready" once warm, and begins at a line on standard input. --obey: prints "ready", and then a JSON object for
each line on standard input, until its end:
  run N            N iterations          seconds S       for so long          each N     each batch size N times, shuffled
  serve R S        for S seconds, requests that come at random (Poisson), R a second on average; us counts from when each was due
  batch FROM-TO    these from now on, of those that --batch has room for
  load WORDS       another model, by this program's own options, in place of the one there is
  profile N FILE   N iterations under PyTorch's profiler, whose JSON goes to FILE"""
import argparse
import json
import os
import random
import signal
import sys
import time


def numbers(text, option="--batch"):
    """FROM-TO, or a number: a list."""
    low, _, high = text.partition("-")
    out = list(range(int(low), int(high or low) + 1))
    if not out or out[0] < 1:
        raise ValueError(f"{option} {text}: a number, or two with the smaller first")
    return out


def parse(words=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, choices=("resnet50", "vgg19", "bert", "llama", "toy"))
    p.add_argument("--job", help="inference or training; of llama prefill, decode or training")
    p.add_argument("--batch", help="samples an iteration, or FROM-TO: at random")
    p.add_argument("--seq", type=int, help="tokens of a sample (bert 384, llama 1024)")
    p.add_argument("--prompt", type=int, default=128, help="decode: tokens of the prompt (default: %(default)s)")
    p.add_argument("--tokens", type=int, default=32, help="decode: tokens made an iteration (default: %(default)s)")
    p.add_argument("--dtype", choices=("fp32", "bf16", "fp16"))
    p.add_argument("--compile", action="store_true", help="with torch.compile")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--graph", action="store_true", help="inference as one CUDA graph; decoding as two, of the prompt and of a token")
    p.add_argument("--resident", action="store_true", help="inputs lie on the card")
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--tiny", action="store_true", help="a few small layers, to try the code")
    p.add_argument("--apart", action="store_true", help="toy: no two of its kernels look alike")
    p.add_argument("--pause", help="toy: microseconds of the card's time before each launch, as frameworks have them; FROM-TO: another each "
                   "iteration, at random")
    p.add_argument("--time-scale", type=float, default=1, help="toy on the virtual GPU: its --scale")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--warmup", type=int, default=3, help="iterations before (default: %(default)s)")
    p.add_argument("--iterations", type=int, default=0)
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--rate", type=float, default=0, help="requests a second, whether they are kept up with or not")
    p.add_argument("--gate", action="store_true")
    p.add_argument("--obey", action="store_true")
    o = p.parse_args(words)
    try:
        if o.model == "toy":
            o.job, o.batch, o.dtype = o.job or "inference", o.batch or "4", "fp32"
            o.pauses = numbers(o.pause, "--pause") if o.pause else None
        else:
            import zoo
            zoo.complete(o)
        o.batches = numbers(o.batch)
    except ValueError as e:
        p.error(str(e))
    o.batch_max = o.batches[-1]
    if not (o.iterations or o.seconds or o.obey):
        p.error("say --iterations, --seconds or --obey")
    return o


def make(o):
    if o.model == "toy":
        import toy as models
    else:
        import zoo as models
    return models.Runner(o)


class Driver:
    def __init__(self, o, runner, out):
        self.o, self.runner, self.out = o, runner, out
        self.random = random.Random(o.seed)
        self.stopped, self.idle = False, False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopped = True
        if self.idle:  # nothing to report
            sys.exit(0)

    def say(self, text):
        self.out.write(text + "\n")
        self.out.flush()

    def measure(self, batches, rate=0.0, poisson=False):
        """One iteration for each batch size that `batches` gives."""
        start_ns, us, host_us, sizes = [], [], [], []
        pieces = getattr(self.runner, "pieces_us", [])
        pieces.clear()
        begin = time.monotonic_ns()
        arrivals = random.Random(self.o.seed)  # the same each time
        due = begin
        for batch in batches:
            if self.stopped:
                break
            now = time.monotonic_ns()
            if rate:
                due += int((arrivals.expovariate(rate) if poisson else 1 / rate) * 1e9) if us or poisson else 0
                if due > now:
                    time.sleep((due - now) / 1e9)
                now = due
            began = time.monotonic_ns()
            self.runner.step(batch)
            host_us.append((self.runner.asked_ns - began) / 1e3)
            us.append((time.monotonic_ns() - now) / 1e3)
            start_ns.append(now)
            sizes.append(batch)
        figures = self.figures(start_ns, us, sizes, (time.monotonic_ns() - begin) / 1e9)
        if self.runner.asked_ns:
            figures["host_us"] = host_us
        return {**figures, "piece_us": pieces.copy()} if pieces else figures

    def figures(self, start_ns, us, sizes, seconds):
        o = self.o
        ordered = sorted(us)
        out = {"model": o.model, "job": o.job, "dtype": o.dtype, "compile": o.compile, "batch_range": o.batch}
        out.update({"seq": o.seq} if o.seq else {})
        out.update(self.runner.versions())
        out.update(iterations=len(us), seconds=round(seconds, 6))
        if us:
            out.update(p50_us=ordered[len(us) // 2], p99_us=ordered[min(len(us) - 1, int(len(us) * 0.99))], max_us=ordered[-1],
                       iterations_per_s=len(us) / seconds, samples_per_s=sum(sizes) / seconds)
        # between the two clocks, for those who have times of the other
        out.update(wall_minus_monotonic_ns=time.time_ns() - time.monotonic_ns(), start_ns=start_ns, us=us, batch=sizes)
        return out

    def at_random(self, count=0, seconds=0.0):
        end = time.monotonic() + seconds
        done = 0
        while (not count or done < count) and (not seconds or time.monotonic() < end):
            yield self.random.choice(self.o.batches)
            done += 1

    def each(self, times):
        sizes = self.o.batches * times
        self.random.shuffle(sizes)
        return sizes

    def profiled(self, count, path):
        got = {}

        def body():
            got.update(self.measure(self.at_random(count)))
        self.runner.profile(body, path)
        return got

    def batch(self, text):
        sizes = numbers(text)
        if sizes[-1] > self.o.batch_max:
            raise ValueError(f"batches of {text}: there is room for {self.o.batch_max} samples")
        self.o.batches = sizes
        return {"batch": text}

    def load(self, *words):
        self.runner = None  # its memory first
        self.o = parse(words)
        self.runner = make(self.o)
        return self.warm()

    def warm(self):
        return self.measure(self.at_random(self.o.warmup) if self.o.warmup else ())

    def obey(self):
        commands = {"run": lambda n: self.measure(self.at_random(int(n))), "each": lambda n: self.measure(self.each(int(n))),
                    "seconds": lambda s: self.measure(self.at_random(seconds=float(s))),
                    "serve": lambda rate, s: self.measure(self.at_random(seconds=float(s)), float(rate), poisson=True),
                    "batch": self.batch, "load": self.load, "profile": lambda n, path: self.profiled(int(n), path)}
        self.idle = True
        for line in sys.stdin:
            self.idle = False
            name, *arguments = line.split()
            self.say(json.dumps(commands[name](*arguments)))
            self.idle = True

    def main(self):
        o = self.o
        self.warm()
        if o.obey:
            self.say("ready")
            return self.obey()
        if o.gate:
            self.say("ready")
            sys.stdin.readline()
        return self.say(json.dumps(self.measure(self.at_random(o.iterations, o.seconds), o.rate)))


def main():
    # What frameworks print must not come between the lines that others read.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    o = parse()
    Driver(o, make(o), out).main()


main()
