#!/usr/bin/env python3
"""Whether kernels in atoms compute what they compute whole: programs with every kernel that can be in 2, 3, 7 and 16 parts.

Each workload of bench/workloads runs bare, and as a tenant with `--atom xN` for each N; many side by side, for most of the time they only
start. Each tenant has the whole card, in turns with the others (a lithosd each, without MPS), so that the cut is all in which it is
another run than the bare one. What differs from the bare run is compared with two more, which tells a
cut's fault from a result that is another from run to run: what three bare runs agree in, bit for bit, must be the same in atoms. A
tenant whose kernels stay whole then tells whether it is the cut. lithos-exact knows its results itself. lithosd tells what became of
each launch: cut, or left whole for a reason."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, proc, results, servers, workloads  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

# What this is about first: should time run out, it is there.
FIRST = ["torch_ops", "torch_llama", "torch_resnet50", "torch_libraries", "triton_ops", "cupy_ops", "jax_step", "torch_conv"]
OWN = "lithos-exact"  # launches of every kind, which knows its results itself
SUMS = ("compared", "same", "launches", "classified", "cut")
AGAIN = 2  # bare runs where something differs from the first


def choose(o, result):
    if virtual():
        return []
    names = o.only.split(",") if o.only else FIRST + [n for n in workloads.names() if n not in FIRST]
    return workloads.installed(o, result, [n for n in names if n != OWN])


class Bench(workloads.Runner):
    """Runs that are compared as soon as they are over. servers: a lithosd for each of those that run side by side."""

    def __init__(self, o, place, scratch, result, servers):
        super().__init__(o, place, scratch)
        self.result, self.free = result, queue.SimpleQueue()
        for d in servers:
            self.free.put(d)
        self.begun, self.guard = time.monotonic(), threading.Lock()
        self.bare_runs, self.again = {}, {}
        self.sums, self.left_out = dict.fromkeys(SUMS, 0), 0

    @contextlib.contextmanager
    def server(self):
        d = self.free.get()
        try:
            yield d
        finally:
            self.free.put(d)

    def tenant(self, name, atom):
        with self.server() as d:
            tenant = f"{name}-{atom}"[:60]
            argv = d.run(self.o.quota, tenant, self.script(name), ["--atom", atom, "--sm-count", "full"])
            return self.run(name, argv, d.env, lambda: {"told": told(d, tenant)})

    def own(self, n):
        """lithos-exact compares by itself. Behind a shell that stays, so that its tenant can be looked at when it has ended."""
        threads = " --threads 2" if virtual() else ""  # it is blocks that are cut, and a virtual card's threads are this machine's
        command = f"'{self.place.program(OWN)}' --json --rounds {self.o.rounds}{threads}; echo $?; read line"
        with self.server() as d, Child(d.run(self.o.quota, f"own-x{n}", ["sh", "-c", command], ["--atom", f"x{n}"]), d.env,
                                       self.errors(OWN)) as c:
            first = c.line(self.o.timeout)
            if not first.startswith("{"):
                raise Failed(f"{OWN}: said {first!r}. {c.why()}")
            code = c.line(60)
            return dict(json.loads(first), exit_code=int(code), told=told(d, f"own-x{n}"), why=c.why())

    def first(self, name):
        """What makes its first bare run, for which those wait that are compared with it."""
        self.bare_runs[name] = concurrent.futures.Future()

        def run():
            try:
                self.bare_runs[name].set_result(self.attempt(f"bare {name}", lambda: self.bare(name)))
            except BaseException as e:
                self.bare_runs[name].set_exception(e)
                raise
        return run

    def uncut(self, name):
        """(further bare runs, a tenant left whole or None), made once, by the first who needs them."""
        with self.guards[name]:
            if name not in self.again:
                bare = [self.attempt(f"bare again {name}", lambda: self.bare(name)) for _ in range(AGAIN)]
                whole = self.attempt(f"whole {name}", lambda: self.tenant(name, "off"))
                self.again[name] = [r for r in bare if not isinstance(r, Failed)], None if isinstance(whole, Failed) else whole
        return self.again[name]

    @staticmethod
    def attempt(label, function):
        try:
            got = function()
            log(f"{label}: {got.get('seconds', '')} s {got.get('told', '')}".rstrip())
            return got
        except (Failed, ValueError, KeyError) as e:
            log(f"{label}: FAILED: {e}")
            return Failed(str(e))

    def case(self, case, row, **figures):
        if proc.ending:  # it was killed, which says nothing of it
            return
        with self.guard:
            self.result.case(case, 1, **figures)
            for key, value in zip(SUMS, row):
                self.sums[key] += value

    def compared(self, name, n):
        """One workload in n parts, beside the bare run; a case and its part of the sums."""
        case, waited = f"{name}, x{n}", self.bare_runs[name]
        if not (waited.done() and isinstance(waited.result(), Failed)):
            cut = self.attempt(f"x{n} {name}", lambda: self.tenant(name, f"x{n}"))
        first = waited.result()
        if isinstance(first, Failed):
            self.result.note(f"{name}: fails without LithOS as well: {str(first)[:200]}")
            return self.case(case, (0, 0, 0, 0, 0), error=f"bare: {first}"[:1500])
        if isinstance(cut, Failed):
            return self.case(case, (1, 0, 0, 0, 0), error=f"in atoms: {cut}"[:1500])
        bare, whole = [first], None
        if differing(bare, cut):
            more, whole = self.uncut(name)
            bare += more
        wrong, varies = differing(bare, cut), varying(bare)
        stable = len(first["hashes"]) - len(varies)
        if varies:
            self.result.note(f"{name}: bare runs differ in {', '.join(varies[:12])}{' and others' if len(varies) > 12 else ''}: not compared.")
        t = cut["told"]
        return self.case(case, (stable, stable - len(wrong), t["launches"], t["launches"] - t["unclassified"] - t["escaped"], t["cut"]),
                         compared=stable, same=stable - len(wrong), differs_in=wrong, varies_bare=varies, bare_runs=len(bare),
                         whole_differs_in=differing(bare, whole) if whole else None, seconds_bare=first["seconds"], seconds=cut["seconds"], values=cut["values"], **t)

    def compared_own(self, n):
        got = self.attempt(f"x{n} {OWN}", lambda: self.own(n))
        case = f"{OWN}, x{n}"
        if isinstance(got, Failed):
            return self.case(case, (1, 0, 0, 0, 0), error=str(got)[:1500])
        t, checks, same = got["told"], got["checks"], got["checks"] - got["wrong"]
        return self.case(case, (checks, same, t["launches"], t["launches"] - t["unclassified"] - t["escaped"], t["cut"]), compared=checks,
                         same=same, exit_code=got["exit_code"], said=got["why"][:500], **t)

    def all(self, names, parts):
        """Everything, o.parallel at a time: the first bare runs, then part by part; what could not be begun in time is counted."""
        self.guards = {name: threading.Lock() for name in names}
        jobs = [self.first(name) for name in names]
        for n in parts:
            jobs += [lambda n=n: self.compared_own(n), *(lambda name=name, n=n: self.compared(name, n) for name in names)]

        def begin(job, bare):
            late = self.o.keep_going_after and time.monotonic() - self.begun > self.o.keep_going_after
            if (late or proc.ending) and not bare:  # others wait for the bare ones
                with self.guard:
                    self.left_out += 1
                return None
            return job()
        with concurrent.futures.ThreadPoolExecutor(self.o.parallel) as pool:
            for future in [pool.submit(begin, job, i < len(names)) for i, job in enumerate(jobs)]:
                future.result()


def told(d, tenant):
    """Of the tenant's launches: how many were cut, into how many atoms, left whole and why, not accounted for."""
    t = d.tenant(tenant)
    a, launches = t["atoms"], t["counters"]["launches"]
    whole = {k: v for k, v in a["whole"].items() if v}
    missing = launches - a["cut"] - sum(whole.values())
    return {"launches": launches, "cut": a["cut"], "atoms": a["atoms"], "whole": whole, "unclassified": abs(missing),
            "escaped": t["counters"]["escaped"]}


def varying(bare):
    """Results in which bare runs differ."""
    return sorted(k for k, v in bare[0]["hashes"].items() if any(run["hashes"].get(k) != v for run in bare[1:]))


def differing(bare, cut):
    """Results that are the same in all bare runs and another in atoms."""
    varies = set(varying(bare))
    return sorted(k for k, v in bare[0]["hashes"].items() if k not in varies and cut["hashes"].get(k) != v)


def default_parallel():
    """Workloads are mostly one thread that loads and compiles; with half of the CPUs each has one for itself."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    p.add_argument("--quota", default="100%", help="of each tenant, which has a lithosd for itself (default: the whole card)")
    p.add_argument("--parallel", type=int, default=default_parallel(), help="programs side by side (default: half of the CPUs, here %(default)s)")
    p.add_argument("--timeout", type=float, default=100, help="seconds a workload may take (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=5, help="of lithos-exact (default: %(default)s)")
    p.add_argument("--parts", default="7,2,16,3", help="into how many, with commas between, in this order (default: %(default)s)")
    p.add_argument("--only", help="workloads by name, with commas between")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    with servers.Scratch() as scratch:
        result = results.Result("exact", cli.command_line(), 1, place, results.probe(place, servers.clean_env()))
        names = choose(o, result)
        with contextlib.ExitStack() as stack:
            # the first one measures the card, for all
            started = [stack.enter_context(servers.Lithosd(place, scratch, f"ld{i}", ["--mps=off"])) for i in range(o.parallel)]
            bench = Bench(o, place, scratch, result, started)
            bench.all(names, [int(n) for n in o.parts.split(",")])
        sums = bench.sums
        operators = [c["values"].get("operators") for c in result.doc["cases"] if c["case"].startswith("torch_ops") and "values" in c]
        result.note(f"PyTorch operators: {max(operators) if operators else 'not run'}. Each count of parts runs everything once: there is "
                    f"nothing to repeat. {o.parallel} tenants of {o.quota} of the TPCs, in turns.")
        if bench.left_out:
            result.note(f"{bench.left_out} runs were not begun: time ran out.")
        result.note(f"Of {sums['launches']} launches {sums['cut']} were cut.")
        result.bar("identical to uncut %", results.percent(sums["same"], sums["compared"]), "==", 100)
        result.bar("launches classified %", results.percent(sums["classified"], sums["launches"]), "==", 100)
        result.end(o.out, bench.left_out)


main()
