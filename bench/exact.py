#!/usr/bin/env python3
"""Whether kernels in atoms compute what they compute whole: programs with every kernel that can be in 2, 3, 7 and 16 parts.

Each workload of bench/workloads, and lithos-exact, runs bare twice, which tells what of its results is the same from run to run, and then
as a tenant with `--atom xN` for each N. What two bare runs agree in, bit for bit, must be the same in atoms. lithosd tells what became
of each launch: cut, or left whole for a reason."""
import json
import pathlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

WORKLOADS = pathlib.Path(__file__).resolve().parent / "workloads"
NEEDS = {"jax_step": "jax", "cupy_ops": "cupy", "triton_ops": "triton", "torch_llm": "transformers", "torch_train": "torchvision",
         "torch_resnet50": "torchvision"}
# What this is about first: should time run out, it is there.
FIRST = ["torch_ops", "torch_llama", "torch_resnet50", "torch_libraries", "triton_ops", "cupy_ops", "jax_step", "torch_conv"]
OWN = "lithos-exact"  # launches of every kind, which knows its results itself
SUMS = ("compared", "same", "launches", "classified", "cut")


def choose(o, result):
    names = o.only.split(",") if o.only else FIRST + sorted(
        f.stem for f in WORKLOADS.glob("*.py") if f.stem != "common" and f.stem not in FIRST)
    if virtual():
        return []
    out = []
    for name in names:
        needs = NEEDS.get(name) or ("torch" if name.startswith("torch") else None)
        if name == OWN:
            continue
        if needs and not models.has_module(o.python, needs):
            result.note(f"{name}: not run, {needs} is not installed here.")
        else:
            out.append(name)
    return out


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.lock, self.runs = threading.Lock(), 0

    def errors(self, name):
        with self.lock:
            self.runs += 1
            return self.scratch.path / f"{self.runs}-{name}.err"

    def run(self, name, argv, env, look=None):
        """A workload to its RESULT line, looked at while it lives."""
        begin = time.monotonic()
        with Child(argv, models.environment(env, self.scratch), self.errors(name)) as c:
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
                out["told"] = look()
            c.tell("")
            if c.wait(60) != 0:
                raise Failed(f"{name}: exit code {c.popen.returncode} at its end. {c.why()}")
        return out

    def script(self, name):
        return [self.o.python, str(WORKLOADS / f"{name}.py")]

    def bare(self, name):
        return self.run(name, self.script(name), servers.clean_env())

    def cut(self, d, name, n):
        tenant = f"{name}-x{n}"[:60]
        return self.run(name, d.run(self.o.quota, tenant, self.script(name), ["--atom", f"x{n}"]), d.env, lambda: told(d, tenant))

    def own(self, d, n):
        """lithos-exact compares by itself. Behind a shell that stays, so that its tenant can be looked at when it has ended."""
        command = f"'{self.place.program(OWN)}' --json --rounds {self.o.rounds}; echo $?; read line"
        argv = d.run(self.o.quota, f"own-x{n}", ["sh", "-c", command], ["--atom", f"x{n}"])
        with Child(argv, d.env, self.errors(OWN)) as c:
            first = c.line(self.o.timeout)
            if not first.startswith("{"):
                raise Failed(f"{OWN}: said {first!r}. {c.why()}")
            code = c.line(60)
            return dict(json.loads(first), exit_code=int(code), told=told(d, f"own-x{n}"), why=c.why())

    def all(self, label, names, function):
        def one(name):
            try:
                got = function(name)
                log(f"{label} {name}: {got['seconds']} s, {got.get('told', '')}")
                return name, got
            except (Failed, ValueError, KeyError) as e:
                log(f"{label} {name}: FAILED: {e}")
                return name, Failed(str(e))
        with ThreadPoolExecutor(self.o.parallel) as pool:
            return dict(pool.map(one, names))


def told(d, tenant):
    """Of the tenant's launches: how many were cut, into how many atoms, left whole and why, not accounted for."""
    t = d.tenant(tenant)
    a, launches = t["atoms"], t["counters"]["launches"]
    whole = {k: v for k, v in a["whole"].items() if v}
    missing = launches - a["cut"] - sum(whole.values())
    return {"launches": launches, "cut": a["cut"], "atoms": a["atoms"], "whole": whole, "unclassified": abs(missing),
            "escaped": t["counters"]["escaped"]}


def compare(first, second, cut):
    """(results that two bare runs agree in, of them those that are the same in atoms, names of the others)"""
    stable = [k for k, v in first["hashes"].items() if second["hashes"].get(k) == v]
    wrong = sorted(k for k in stable if cut["hashes"].get(k) != first["hashes"][k])
    return len(stable), len(stable) - len(wrong), wrong


def record(result, rep, name, n, first, second, cut):
    """One case; (compared, same, launches, classified, cut launches)."""
    case = f"{name}, x{n}"
    failed = next((f"{who}: {r}" for who, r in (("bare", first), ("bare again", second), ("in atoms", cut)) if isinstance(r, Failed)), None)
    if failed:
        result.case(case, rep, error=failed[:1500])
        ours = not isinstance(first, Failed) and not isinstance(second, Failed)
        if not ours:
            result.note(f"{name}: fails without LithOS as well: {failed[:200]}")
        return (1 if ours else 0), 0, 0, 0, 0
    compared, same, wrong = compare(first, second, cut)
    varies = sorted(k for k, v in first["hashes"].items() if second["hashes"].get(k) != v)
    t = cut["told"]
    result.case(case, rep, compared=compared, same=same, differs_in=wrong, varies_bare=varies, seconds_bare=first["seconds"],
                seconds=cut["seconds"], values=cut["values"], **t)
    if varies:
        result.note(f"{name}: two bare runs differ in {', '.join(varies[:12])}{' and others' if len(varies) > 12 else ''}: not compared.")
    return compared, same, t["launches"], t["launches"] - t["unclassified"] - t["escaped"], t["cut"]


def own(bench, result, d, n, rep):
    """As record."""
    try:
        got = bench.own(d, n)
        t = got["told"]
        result.case(f"{OWN}, x{n}", rep, compared=got["checks"], same=got["checks"] - got["wrong"], exit_code=got["exit_code"],
                    said=got["why"][:500], **t)
        log(f"x{n} {OWN}: {got}")
        return got["checks"], got["checks"] - got["wrong"], t["launches"], t["launches"] - t["unclassified"] - t["escaped"], t["cut"]
    except (Failed, ValueError, KeyError) as e:
        result.case(f"{OWN}, x{n}", rep, error=str(e)[:1500])
        log(f"x{n} {OWN}: FAILED: {e}")
        return 1, 0, 0, 0, 0


def parts(bench, result, names, bare, n, sums):
    with servers.Lithosd(bench.place, bench.scratch, f"x{n}") as d:
        rows = [own(bench, result, d, n, 1)]
        cut = bench.all(f"x{n}", names, lambda name: bench.cut(d, name, n))
    rows += [record(result, 1, name, n, bare[0][name], bare[1][name], cut[name]) for name in names]
    for row in rows:
        for key, value in zip(SUMS, row):
            sums[key] += value


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    p.add_argument("--quota", type=int, default=16, help="TPCs of each tenant (default: %(default)s)")
    p.add_argument("--parallel", type=int, default=4, help="workloads side by side (default: %(default)s)")
    p.add_argument("--timeout", type=float, default=240, help="seconds a workload may take (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=5, help="of lithos-exact (default: %(default)s)")
    p.add_argument("--parts", default="7,2,16,3", help="into how many, with commas between, in this order (default: %(default)s)")
    p.add_argument("--only", help="workloads by name, with commas between")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    begun, failures = time.monotonic(), 0
    sums = dict.fromkeys(SUMS, 0)
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("exact", cli.command_line(), 1, place, results.probe(place, servers.clean_env()))
        names = choose(o, result)
        bare = bench.all("bare", names, bench.bare), bench.all("bare again", names, bench.bare)
        for n in map(int, o.parts.split(",")):
            if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"In {n} parts: not run, time ran out.")
                failures += 1
                continue
            try:
                parts(bench, result, names, bare, n, sums)
            except Failed as e:
                failures += 1
                result.case(f"lithosd, x{n}", 1, error=str(e)[:1000])
                log(f"x{n}: FAILED: {e}")
        operators = [c["values"].get("operators") for c in result.doc["cases"] if c["case"].startswith("torch_ops") and "values" in c]
        result.note(f"PyTorch operators: {max(operators) if operators else 'not run'}. Each count of parts runs everything once: there is "
                    "nothing to repeat.")
        result.note(f"Of {sums['launches']} launches {sums['cut']} were cut.")
        result.bar("identical to uncut %", results.percent(sums["same"], sums["compared"]), "==", 100)
        result.bar("launches classified %", results.percent(sums["classified"], sums["launches"]), "==", 100)
        missed = result.write(o.out)
    sys.exit(1 if failures or missed else 0)


main()
