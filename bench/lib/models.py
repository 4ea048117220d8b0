"""Models of bench/models as a benchmark drives them: which there are, what they need, a process that obeys."""
import functools
import json
import pathlib
import subprocess
import sys
import time

from lib.place import virtual
from lib.proc import Child, Failed

RUN = pathlib.Path(__file__).resolve().parent.parent / "models/run.py"
# name: what run.py is told. Names end in the job.
MODELS = {
    "resnet50 inference": ["--model", "resnet50", "--job", "inference", "--batch", "8"],
    "resnet50 training": ["--model", "resnet50", "--job", "training", "--batch", "32"],
    "vgg19 inference": ["--model", "vgg19", "--job", "inference", "--batch", "8"],
    "vgg19 training": ["--model", "vgg19", "--job", "training", "--batch", "32"],
    "bert inference": ["--model", "bert", "--job", "inference", "--batch", "8", "--seq", "384"],
    "bert training": ["--model", "bert", "--job", "training", "--batch", "8", "--seq", "384"],
    "llama prefill": ["--model", "llama", "--job", "prefill", "--batch", "1", "--seq", "1024"],
    "llama decode": ["--model", "llama", "--job", "decode", "--batch", "1", "--prompt", "128", "--tokens", "32"],
    "llama training": ["--model", "llama", "--job", "training", "--batch", "4", "--seq", "1024"],
    "toy inference": ["--model", "toy"],
    "toy small": ["--model", "toy", "--tiny"],
    "toy apart": ["--model", "toy", "--apart"],
    "toy small apart": ["--model", "toy", "--tiny", "--apart"],
    "toy paused": ["--model", "toy", "--apart", "--pause", "60-140"],
}
# What the issue on stamps and prediction names.
PAPER = ["resnet50 inference", "resnet50 training", "bert inference", "bert training", "llama prefill", "llama decode",
         "llama training"]
NEEDS = {"resnet50": ("torch", "torchvision"), "vgg19": ("torch", "torchvision"), "bert": ("torch", "transformers"),
         "llama": ("torch", "transformers"), "toy": ()}
MORE_BATCHES = "1-16"


def in_name(names):
    """Of a result that is of these models alone: what its name ends with."""
    return "".join("-" + name.replace(" ", "-") for name in names)


def is_training(name):
    return name.endswith("training")


def add_options(p, default=None):
    p.add_argument("--models", help="by name, with commas between, of " + ", ".join(MODELS) +
                   " (default: " + ", ".join(default or PAPER) + "; with --virtual: toy inference)")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    p.add_argument("--model-timeout", type=float, default=400, metavar="S",
                   help="for a model to be loaded, compiled and warm (default: %(default)s)")
    p.set_defaults(models_default=default or PAPER)


def has_module(python, module):
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], stdin=subprocess.DEVNULL).returncode == 0


def choose(o, result):
    """Names of the models to run; those that cannot be are in the notes."""
    names = o.models.split(",") if o.models else ["toy inference"] if virtual() else o.models_default
    unknown = [n for n in names if n not in MODELS]
    if unknown:
        raise SystemExit(f"bench: --models: there is no {', '.join(unknown)}; there are {', '.join(MODELS)}")
    out = []
    for name in names:
        missing = [m for m in NEEDS[name.split()[0]] if not has_module(o.python, m)]
        if missing:
            result.note(f"{name}: not run, {' and '.join(missing)} is not installed here.")
        else:
            out.append(name)
    return out


@functools.lru_cache
def byte_compiled(python):
    """Whether the frameworks' bytecode lies beside them, as some installers leave it. To compile it again takes each process seconds."""
    code = ("import importlib.util, os, sys; s = importlib.util.find_spec('torch');"
            "sys.exit(not (s is None or os.path.exists(importlib.util.cache_from_source(s.origin))))")
    return subprocess.run([python, "-c", code], stdin=subprocess.DEVNULL).returncode == 0


def environment(env, scratch, python=None):
    """For frameworks: nothing is downloaded or written beside them, and what is compiled is kept for the next process of this run, or
    where the environment says; of the interpreter `python` (default: this one) its bytecode as well."""
    out = dict(env, PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", XLA_PYTHON_CLIENT_PREALLOCATE="false")
    if not byte_compiled(python or sys.executable):
        out.setdefault("PYTHONPYCACHEPREFIX", str(scratch.folder("bytecode")))
    elif "PYTHONPYCACHEPREFIX" not in out:
        out["PYTHONDONTWRITEBYTECODE"] = "1"
    for name, folder in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton"), ("CUPY_CACHE_DIR", "cupy")):
        if name not in out:
            out[name] = str(scratch.folder(folder))
    return out


def words(o, name, *extra):
    """What run.py is told, at its start or to load another model."""
    return [*MODELS[name], "--time-scale", f"{o.scale:g}", *extra]


def command(o, name, *extra):
    return [o.python, str(RUN), *words(o, name, *extra)]


class Model(Child):
    """A process of run.py --obey. tenant: its name under lithosd, when it has one."""

    def __init__(self, o, argv, env, stderr_path, tenant=None):
        super().__init__(argv, env, stderr_path)
        self.o, self.tenant = o, tenant

    def ready(self):
        self.expect("ready", self.o.model_timeout)

    def do(self, text, timeout_s=300):
        """Has it obey one line: what it answers."""
        self.tell(text)
        answer = self.line(timeout_s)
        try:
            return json.loads(answer)
        except ValueError as e:
            raise Failed(f"{self.argv[-1]}: not JSON: {answer[:200]}") from e

    def end(self):
        self.popen.stdin.close()
        if self.wait(60) != 0:
            raise Failed(f"a model: exit code {self.popen.returncode} at its end. {self.why()}")


def under_lithos(o, d, quota, tenant, name, scratch, *extra, options=()):
    """A model as a tenant of d, ready. options: of `lithos run`."""
    child = Model(o, d.run(quota, tenant, command(o, name, "--obey", *extra), options), environment(d.env, scratch, o.python),
                  scratch.path / f"{tenant}.err", tenant)
    return warm(child)


def bare(o, env, label, name, scratch, *extra):
    """The same without LithOS."""
    return warm(Model(o, command(o, name, "--obey", *extra), environment(env, scratch, o.python), scratch.path / f"{label}.err"))


def warm(child):
    try:
        child.ready()
    except BaseException:
        child.kill()
        raise
    return child


def windows(figures, offset_ns=0):
    """Begin and end of each iteration that run.py reported, on its clock (CLOCK_MONOTONIC) plus offset_ns."""
    return [(s + offset_ns, s + int(us * 1e3) + offset_ns) for s, us in zip(figures["start_ns"], figures["us"])]


def settle():
    """Until lithosd has seen the ends of what has ended."""
    time.sleep(0.1)
