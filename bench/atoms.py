#!/usr/bin/env python3
"""What it costs a kernel to be cut into atoms: whole, atoms of 250 us and of 60 us, chained and plain, side by side.

A process for each way, all clients of one MPS, each the only tenant of a lithosd of its own, take turns with one kernel after the other:
some launches to learn (lithosd has to see how long it takes, and what a cut costs), then a timed row. Then models run with atoms of 250 us,
to see which share of a program's time is in kernels that cannot be cut."""
import contextlib
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, trace  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

KERNELS = pathlib.Path(__file__).resolve().parent / "kernels/run.py"
WHOLE = "whole"
# name: (--atom, environment)
WAYS = {WHOLE: (None, {}),
        "250us chained": ("250us", {}), "60us chained": ("60us", {}),
        "250us plain": ("250us", {"LITHOS_ATOMS": "plain"}), "60us plain": ("60us", {"LITHOS_ATOMS": "plain"})}
LIMITS = {"250us chained": 3, "60us chained": 7}
LEFT_WHOLE = "persistent bf16 gemm 8192"
MODELS = ["llama training", "bert inference"]
LEARN = 72  # launches: a trial takes some 40
AT_ONCE = 6  # of them launched ahead: a choice is that of when a kernel is launched, and is known when others have ended
LONG_NS = 375000  # a kernel that long would be cut into 250 us


class Way(Child):
    """One process that launches kernels, and what lithosd says of its atoms."""

    def __init__(self, bench, stack, name, env, number):
        atom, more = WAYS[name]
        self.name = name
        self.lithosd = stack.enter_context(servers.Lithosd(bench.place, bench.scratch, f"l{number}", [], dict(env, **more)))
        self.tenant = f"way-{number}"
        atom = atom if not atom or bench.o.scale == 1 else f"{int(atom[:-2]) * bench.o.scale:.0f}us"
        extra = ["--atom", atom] if atom else []
        argv = [bench.o.python, str(KERNELS), "--ptx", bench.ptx, *(["--no-torch"] if bench.o.no_torch else []),
                *(["--small"] if virtual() else [])]
        super().__init__(self.lithosd.run("100%", self.tenant, argv, extra),
                         models.environment(self.lithosd.env, bench.scratch), bench.scratch.path / f"way-{number}.err")

    def ready(self, timeout_s):
        word, _, names = self.line(timeout_s).partition(" ")
        if word != "ready":
            raise Failed(f"{self.name}: said {word!r} where 'ready' was due. {self.why()}")
        return json.loads(names)

    def warm(self, kernel, n, timeout_s):
        self.tell(f"warm {kernel} {n}")
        self.expect("done", timeout_s)

    def time(self, kernel, n, timeout_s):
        self.tell(f"time {kernel} {n}")
        return json.loads(self.line(timeout_s))["us"]

    def atoms(self):
        return self.lithosd.tenant(self.tenant)["atoms"]


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.ptx = str(place.root / "share/lithos/kernels/samples.ptx")
        self.limit = 60 * max(1, o.scale / 4)

    def learn(self, ways, kernel):
        """All know the kernel by now: how many launches a timed row has, and what became of it in each."""
        first = ways[WHOLE]
        first.warm(kernel, 2, self.limit)
        us = first.time(kernel, 2, self.limit)
        n = max(2, min(200, round(self.o.row_s * 1e6 / us)))
        learn = LEARN if us < self.o.learn_us else max(6, round(LEARN * self.o.learn_us / us))
        made = {}
        for name, way in ways.items():
            if name != WHOLE:
                before = way.atoms()
                for _ in range(0, learn, AT_ONCE):
                    way.warm(kernel, AT_ONCE, self.limit + us * self.o.scale / 1e4)
                after = way.atoms()
                made[name] = {"cut_of_learned": after["cut"] - before["cut"], "atoms_of_learned": after["atoms"] - before["atoms"]}
        return n, made

    def row(self, ways, kernel, n, turn):
        """One timed row each, everybody is first as often as the others: {way: us}, and what was cut meanwhile."""
        names = list(ways)
        names = names[turn % len(names):] + names[:turn % len(names)]
        out, told = {}, {}
        for name in names:
            before = ways[name].atoms()
            out[name] = ways[name].time(kernel, n, self.limit)
            after = ways[name].atoms()
            told[name] = (after["cut"] - before["cut"], after["atoms"] - before["atoms"],
                          {k: after["whole"][k] - v for k, v in before["whole"].items() if after["whole"][k] != v})
        return out, told

    def kernel(self, result, ways, kernel):
        n, made = self.learn(ways, kernel)
        for rep in range(1, self.o.repetitions + 1):
            times, told = self.row(ways, kernel, n, rep)
            for name in ways:
                cut, atoms, whole = told[name]
                figures = {"us": round(times[name], 2), "launches": n, "cut": cut, "atoms_each": round(atoms / cut, 2) if cut else 0,
                           "slower_percent": round(100 * (times[name] / times[WHOLE] - 1), 3), "left_whole": whole}
                result.case(f"{kernel}, {name}", rep, **figures, **made.get(name, {}))
                log(f"[{rep}] {kernel}, {name}: {figures}")


def share_uncut(kernels, sms):
    """Of the kernels' time, in percent: in kernels of so few blocks that they are one wave however small; in those as long as to be
    cut; in both."""
    total = sum(k["end"] - k["start"] for k in kernels)

    def percent(test):
        return round(results.percent(sum(k["end"] - k["start"] for k in kernels if test(k)), total) or 0, 2)

    def one_wave(k):
        return k["gx"] * k["gy"] * k["gz"] <= sms

    def long(k):
        return k["end"] - k["start"] >= LONG_NS
    return {"kernels": len(kernels), "one_wave_time_percent": percent(one_wave), "long_time_percent": percent(long),
            "long_one_wave_time_percent": percent(lambda k: long(k) and one_wave(k))}


def programs(bench, result, sms):
    """Models with atoms of 250 us: what was cut, and which share of their time could not be."""
    for name in models.choose(bench.o, result):
        path = bench.scratch.path / "model.trace"
        try:
            with servers.Lithosd(bench.place, bench.scratch, "lm") as d:
                argv = models.command(bench.o, name, "--obey")
                env = models.environment(d.env, bench.scratch)
                with models.Model(bench.o, d.run("100%", "model", argv, ["--atom", "250us"]), env,
                                  bench.scratch.path / "model.err", "model") as model:
                    model.ready()
                    model.do("run 10")
                    with d.record(path, "model"):
                        ran = model.do("run 10")
                    atoms = d.tenant("model")["atoms"]
            kernels, _ = trace.load(path)
            figures = {"iteration_p50_us": ran.get("p50_us"), "launches_cut": atoms["cut"], "atoms": atoms["atoms"],
                       **{f"whole_{k}": v for k, v in atoms["whole"].items() if v}, **share_uncut(kernels, sms)}
            result.case(f"program, {name}", 1, **figures)
            log(f"program, {name}: {figures}")
        except (Failed, KeyError, OSError) as e:
            result.case(f"program, {name}", 1, error=str(e)[:1000])
            log(f"program, {name}: FAILED: {e}")


def cut_kernels(result, way):
    """Medians of how much slower, of the kernels that were cut."""
    out = {}
    for kernel in {c["case"].rpartition(", ")[0] for c in result.doc["cases"] if c["case"].endswith(", " + way)}:
        cases = [c for c in result.doc["cases"] if c["case"] == f"{kernel}, {way}" and "slower_percent" in c]
        if cases and results.median([c["cut"] for c in cases]) > 0:
            out[kernel] = results.median([c["slower_percent"] for c in cases])
    return out


def bars(result):
    for way, limit in LIMITS.items():
        values = cut_kernels(result, way)
        length = way.split("us")[0]
        result.bar(f"chained {length} us, % slower", results.median(values.values()) if values else None, "<=", limit)
    for way in WAYS:
        values = cut_kernels(result, way)
        if way != WHOLE and values:
            result.note(f"{way}, % slower: " + ", ".join(f"{k} {v:.1f}" for k, v in sorted(values.items())) + ".")
    uncut = sorted({c["case"].rpartition(", ")[0] for c in result.doc["cases"] if c["case"].endswith("250us chained")} -
                   set(cut_kernels(result, "250us chained")))
    if uncut:
        result.note("Left whole with atoms of 250 us (why: left_whole of the cases): " + ", ".join(uncut) + ".")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p, MODELS)
    p.add_argument("--row-s", type=float, default=0.15, help="seconds of a timed row")
    p.add_argument("--learn-us", type=float, default=20000, help="kernels longer than this are learned from fewer launches")
    p.add_argument("--only", help="kernels whose name has this in it")
    p.add_argument("--no-torch", action="store_true", help="the sample kernels alone")
    p.add_argument("--no-models", action="store_true")
    o, place = cli.start(p)
    o.no_torch = o.no_torch or virtual()
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch, contextlib.ExitStack() as stack:
        bench = Bench(o, place, scratch)
        card = results.probe(place, servers.clean_env())
        sms = (card.get("gpus") or [{}])[0].get("sm_count", 132)
        result = results.Result("atoms", cli.command_line(), o.repetitions, place, card)
        mps = stack.enter_context(servers.Mps(scratch))
        ways = {name: stack.enter_context(Way(bench, stack, name, mps.env, i)) for i, name in enumerate(WAYS)}
        names = [way.ready(o.model_timeout) for way in ways.values()][0]
        for kernel in names:
            if o.only and o.only not in kernel:
                continue
            if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"{kernel}: not measured, time ran out.")
                continue
            try:
                bench.kernel(result, ways, kernel)
            except (Failed, ValueError, KeyError) as e:
                failures += 1
                result.case(kernel, 1, error=str(e)[:1000])
                log(f"{kernel}: FAILED: {e}")
                if any(way.popen.poll() is not None for way in ways.values()):
                    break
        for way in ways.values():
            way.kill()
        if not o.no_models and not virtual() and not (o.keep_going_after and time.monotonic() - begun > o.keep_going_after):
            programs(bench, result, sms)
        result.note("Operations of a framework may be several kernels; each time is that of the operation. A kernel that stays whole is "
                    "in no bar.")
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times are the host's.")
        bars(result)
        missed = result.write(o.out)
    sys.exit(1 if failures or missed else 0)


main()
