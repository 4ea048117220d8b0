#!/usr/bin/env python3
"""Debuggers and profilers on a program under LithOS: do they work, and does LithOS then, or does it say in one line that it steps aside?

Each tool runs lithos-burn bare (does the tool work here at all?), as a tenant with atoms, and as LithOS advises where the two do not go
together (`lithos run --coarse`). Reports what the tool said, what the program computed, and what lithosd saw of its launches."""
import json
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

BURN = ["--check", "--json", "--seconds", "0.5", "--warmup", "0.1"]
TORCH = """
import sys, torch
from torch.profiler import profile, ProfilerActivity
x = torch.randn(1 << 24, device="cuda")
with profile(activities=[ProfilerActivity.CUDA]) as p:
    for _ in range(50):
        x.mul_(1.0001)
    torch.cuda.synchronize()
kernels = sum(1 for e in p.events() if "elementwise" in e.name)
print(f"torch.profiler saw {kernels} kernels", file=sys.stderr)
print('{"check": true, "kernels": 50}')
"""
# name: (program that must be there, arguments before the program's, what its output must have in it to have worked)
TOOLS = {
    "none": (None, [], None),
    "compute-sanitizer memcheck": ("compute-sanitizer", ["--tool", "memcheck"], "ERROR SUMMARY: 0 errors"),
    "cuda-gdb": ("cuda-gdb", ["--batch", "-ex", "run", "-ex", "info cuda devices", "--args"], "exited normally"),
    "ncu": ("ncu", ["--launch-count", "3", "--set", "none", "--metrics", "gpu__time_duration.sum"], "gpu__time_duration.sum"),
    "nsys": ("nsys", ["profile", "--force-overwrite", "true", "--stats=true", "-o", "OUT/nsys"], "lithos_fma"),
    "torch.profiler": ("torch", None, "saw 50 kernels"),
}
FOLDERS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute", "/opt/nvidia/nsight-systems/bin")


def find(program):
    path = shutil.which(program)
    for folder in FOLDERS:
        candidates = [pathlib.Path(folder, program), *sorted(pathlib.Path(folder).glob(f"*/{program}"))]
        path = path or next((str(c) for c in candidates if os.access(c, os.X_OK)), None)
    return path


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.runs = 0

    def command(self, tool):
        program, before, _ = TOOLS[tool]
        burn = [self.place.program("lithos-burn"), *BURN, "--time-scale", f"{self.o.scale:g}"]
        if tool == "none":
            return burn
        if program == "torch":
            if not models.has_module(self.o.python, "torch"):
                raise Failed("torch is not installed here")
            return [self.o.python, "-c", TORCH]
        path = find(program)
        if not path:
            raise Failed(f"{program} is not installed here")
        return [path, *(a.replace("OUT", str(self.scratch.path)) for a in before), *burn]

    def run(self, tool, argv, env, look=None):
        """{did the tool work, the program's figures, what LithOS said, exit code}, whatever came of it. A shell stays behind it, so that the
        tenant can be looked at when the tool has ended."""
        self.runs += 1
        said = self.scratch.path / f"{self.runs}.said"
        script = f'"$@" > {said} 2>&1 < /dev/null; echo "code $?"; read line'
        shell = ["sh", "-c", script, "sh"]
        full = argv(shell) if callable(argv) else [*shell, *argv]
        with Child(full, models.environment(env, self.scratch), self.scratch.path / f"{self.runs}.err") as c:
            code = c.line(self.o.timeout)
            told = look() if look else {}
            c.tell("")
            c.wait(20)
            mine = c.why()
        text = said.read_text(errors="replace")
        lines = [line for line in (text + "\n" + mine).splitlines() if line.startswith(("lithos: warning", "lithos: error"))]
        figures = next((json.loads(line) for line in text.splitlines() if line.startswith("{") and '"check"' in line), {})
        wanted = TOOLS[tool][2]
        worked = wanted is None or wanted in text
        return {"exit_code": int(code.split()[-1]), "tool_worked": worked,
                "check": figures.get("check"), "kernels": figures.get("kernels", 0), "sms_used": figures.get("sms_used"),
                "lithos_said": lines[:5], **({} if worked and figures.get("check") else {"last_words": text[-600:]}), **told}

    def tenant(self, d, tool, extra):
        argv = self.command(tool)
        return self.run(tool, lambda shell: d.run("50%", "tool", [*shell, *argv], extra), d.env, lambda: self.look(d))

    def look(self, d):
        t = d.tenant("tool")
        c, a = t["counters"], t["atoms"]
        return {"mode": t["mode"], "launches": c["launches"], "qmds": c["qmds"], "masked": c["masked"], "escaped": c["escaped"],
                "cut": a["cut"]}


def works(run):
    return bool(run and run.get("check") and run["tool_worked"])


def held(run, bare):
    """Whether its launches kept to half of the card: all masked, or on so few SMs as far as it counts them."""
    if run["mode"] == "mask":
        return run["masked"] > 0 and run["masked"] == run["qmds"]
    return run["sms_used"] is None or 2 * run["sms_used"] <= bare["sms_used"]


def outcome(run, bare):
    """(what came of a tool that works bare, whether that is as it should be: all works, or LithOS says why not)."""
    if run is None:
        return "could not be run", False
    if works(run) and held(run, bare):
        return "works", True
    if not run["check"] and run["launches"] > 0:
        return "the program fails", False
    what = "does not start the program"
    if works(run):
        what = "works, the quota is not held"
    elif run["check"]:
        what = "sees nothing, the quota is held" if held(run, bare) else "does not work, the program does"
    said = bool(run["lithos_said"])
    return f"{what}, {'as' if said else 'and nothing of that'} LithOS says", said


WAYS = (("", ["--atom", "250us"], []), (", coarse", ["--coarse"], []))
TURNS = (", coarse, --mps=off", ["--coarse"], ["--mps=off"])


def attempt(bench, result, tool, name, extra, server):
    """A case; None when it could not be run."""
    try:
        with servers.Lithosd(bench.place, bench.scratch, f"t{bench.runs}", server) as d:
            got = bench.tenant(d, tool, extra)
        result.case(f"{tool}, tenant{name}", 1, **got)
        log(f"{tool}, tenant{name}:", {k: v for k, v in got.items() if k != "last_words"})
        return got
    except (Failed, ValueError, KeyError) as e:
        result.case(f"{tool}, tenant{name}", 1, error=str(e)[:1000])
        log(f"{tool}, tenant{name}: FAILED: {e}")
        return None


def beside(bench, result, tool, bare):
    """One tool, as LithOS advises as well; true when all is as it should be."""
    runs = [attempt(bench, result, tool, *way) for way in WAYS]
    (masked, well), (coarse, also_well) = (outcome(run, bare) for run in runs)
    told = f"on a tenant {masked}; with --coarse {coarse}"
    if not works(runs[1]):
        told += f"; without MPS too {'works' if works(attempt(bench, result, tool, *TURNS)) else 'does not work'}"
    result.note(f"{tool}: {told}.")
    log(f"{tool}: {told}")
    return well and also_well


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    p.add_argument("--timeout", type=float, default=90, help="seconds a tool may take (default: %(default)s)")
    p.add_argument("--only", help="tools whose name has this in it")
    p.add_argument("--python", default=sys.executable, help="the Python that has PyTorch")
    o, place = cli.start(p)
    good, tried = 0, 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("tools", cli.command_line(), 1, place, results.probe(place, servers.clean_env()))
        for tool in TOOLS:
            if o.only and o.only not in tool or (virtual() and tool != "none"):
                continue
            try:
                bare = bench.run(tool, bench.command(tool), servers.clean_env())
                result.case(f"{tool}, bare", 1, **bare)
                log(f"{tool}, bare:", {k: v for k, v in bare.items() if k != "last_words"})
            except (Failed, ValueError) as e:
                result.note(f"{tool}: not tried: {str(e)[:200]}")
                log(f"{tool}: not tried: {e}")
                continue
            if not works(bare):
                result.note(f"{tool}: not tried: it does not work bare.")
                continue
            tried += 1
            good += beside(bench, result, tool, bare)
        result.bar("tools that work or are told why not %", results.percent(good, tried), "==", 100)
        missed = result.write(o.out)
    sys.exit(1 if missed else 0)


main()
