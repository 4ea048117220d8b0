"""Workloads of bench/workloads: programs that say `RESULT {...}`, wait for a line, and end."""
import json
import pathlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lib import models, servers
from lib.proc import Child, Failed, log

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "workloads"
# A module that a workload cannot do without: skipped, and said so, where it is not installed.
NEEDS = {"jax_step": "jax", "cupy_ops": "cupy", "triton_ops": "triton", "torch_llm": "transformers", "torch_train": "torchvision",
         "torch_resnet50": "torchvision"}


def names():
    return sorted(f.stem for f in FOLDER.glob("*.py") if f.stem not in ("common", "driver"))


def installed(o, result, chosen):
    """Those of them that this Python can run; of the others the result gets a note."""
    out = []
    for name in chosen:
        needs = NEEDS.get(name) or ("torch" if name.startswith("torch") else None)
        if needs and not models.has_module(o.python, needs):
            result.note(f"{name}: not run, {needs} is not installed here.")
        else:
            out.append(name)
    return out


class Runner:
    """Runs them. o: python, timeout, parallel."""

    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.lock, self.runs = threading.Lock(), 0

    def errors(self, name):
        with self.lock:
            self.runs += 1
            return self.scratch.path / f"{self.runs}-{name}.err"

    def script(self, name):
        return [self.o.python, str(FOLDER / f"{name}.py")]

    def run(self, name, argv, env, look=None):
        """One to its RESULT line, looked at while it lives, and let go: its figures, those that look() returns among them."""
        begin = time.monotonic()
        with Child(argv, models.environment(env, self.scratch, self.o.python), self.errors(name)) as c:
            while True:
                left = self.o.timeout - (time.monotonic() - begin)
                if left <= 0:
                    raise Failed(f"{name}: no result in {self.o.timeout:.0f} s. {c.why()}")
                text = c.line(left)
                if text.startswith("RESULT "):
                    break
            out = json.loads(text[len("RESULT "):])
            out["seconds"] = round(time.monotonic() - begin, 2)
            if look:
                out.update(look())
            c.tell("")
            out["exit_code"] = c.wait(60)
            if out["exit_code"] != 0:
                raise Failed(f"{name}: exit code {out['exit_code']} at its end. {c.why()}")
        return out

    def bare(self, name):
        return self.run(name, self.script(name), servers.clean_env())

    def all(self, label, names, function, said=lambda got: ""):
        """function(name) for each, some side by side: {name: figures or the Failed}. said: what the log has of figures."""
        def one(name):
            try:
                got = function(name)
                log(f"{label} {name}: {got['seconds']} s{said(got)}")
                return name, got
            except (Failed, ValueError, KeyError) as e:
                log(f"{label} {name}: FAILED: {e}")
                return name, Failed(str(e))
        with ThreadPoolExecutor(self.o.parallel) as pool:
            return dict(pool.map(one, names))
