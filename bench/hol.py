#!/usr/bin/env python3
"""Head of line: how long a service's short kernels wait behind a batch job's long ones, cut into atoms and not.

The service gets a request of one kernel of 100 us every 2 ms; the batch job launches kernels of 10 ms back to back. Neither has TPCs of its
own: both may use the whole card, under one MPS, with the job at low client priority and without. The service is a plain client of that
MPS. The job is one too, or a tenant of a lithosd with the whole card as its quota, so that its masks keep it from nothing: what
differs then is its kernels' atoms, and nothing else.

Behind whole kernels the service falls ever further behind its requests, and p99 says how long the run was. So some cases are run
again with a request every 25 ms, which every way can serve: there p99 is what one request waits."""
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

ALONE, BE_ALONE = "hp alone", "be alone"
UNCUT = "mps"
START_S = 60
ATOMS = ("250us", "60us")
PRIORITY = ", client priority"
SELDOM = ", every 25 ms"


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.common = ["--json", "--gate", "--time-scale", f"{o.scale:g}"]
        self.timeout = (o.seconds + o.warmup) * o.scale + 60
        self.runs = 0

    def hp(self, seldom):
        return [self.place.program("lithos-serve"), "--period-us", "25000" if seldom else "2000", "--seconds", str(self.o.seconds),
                "--warmup", "0.3", *self.common]

    def be(self):
        # until SIGTERM: it must not end before the service does. What it is cut into is learned while it warms up.
        return [self.place.program("lithos-burn"), "--kind", "short", "--iters", str(self.o.iters), "--seconds", "0",
                "--warmup", str(self.o.warmup), *self.common]

    def errors(self, who):
        self.runs += 1
        return self.scratch.path / f"{self.runs}-{who}.err"

    def pair(self, hp=None, be=None, look=None):
        """The service, the job, or both over the same window; each (argv, environment). look: asked of the job at the end."""
        children = []
        try:
            burner = service = None
            if be:
                burner = Child(*be, self.errors("be"))
                children.append(burner)
                burner.expect("ready", (START_S + self.o.warmup * self.o.scale) * max(1, self.o.scale / 4))
            if hp:
                service = Child(*hp, self.errors("hp"))
                children.append(service)
                service.expect("ready", START_S * max(1, self.o.scale / 4))
            for c in children:
                c.tell("")
            out = {}
            if service:
                served = service.result(self.timeout)
                out.update({k: served[k] for k in ("requests", "unserved", "p50_us", "p99_us", "p999_us", "max_us")})
            else:
                time.sleep(self.o.seconds * self.o.scale)
            if look:
                out.update(look())
            if burner:
                burner.signal(signal.SIGTERM)
                out["be_kernels_per_s"] = burner.result(self.timeout)["kernels_per_s"]
            return out
        finally:
            for c in children:
                c.kill()

    def atoms(self, d):
        a = d.tenant("be")["atoms"]
        return {"cut": a["cut"], "atoms": a["atoms"], "left_whole": {k: v for k, v in a["whole"].items() if v}}

    def case(self, hp=True, be=True, atom=None, priority=False, seldom=False):
        with servers.Mps(self.scratch) as mps:
            more = {"CUDA_MPS_CLIENT_PRIORITY": "1"} if priority else {}
            service = (self.hp(seldom), mps.env) if hp else None
            if not be or atom is None:
                return self.pair(service, (self.be(), dict(mps.env, **more)) if be else None)
            # beside that MPS, not of its own
            with servers.Lithosd(self.place, self.scratch, env=mps.env) as d:
                scaled = atom if atom == "off" else f"{int(atom[:-2]) * self.o.scale:.0f}us"
                job = d.run("100%", "be", self.be(), ["--atom", scaled])
                return self.pair(service, (job, dict(d.env, **more)), lambda: self.atoms(d))


def cases(bench):
    """(name, function) of one repetition: each way with the service alone before it, as the machine's noise comes and goes."""
    alone = (ALONE, lambda: bench.case(be=False))
    yield alone
    yield BE_ALONE, lambda: bench.case(hp=False)
    for suffix, priority in (("", False), (PRIORITY, True)):
        yield UNCUT + suffix, lambda priority=priority: bench.case(priority=priority)
        yield "tenant, uncut" + suffix, lambda priority=priority: bench.case(atom="off", priority=priority)
        for atom in ATOMS:
            yield f"tenant, atoms of {atom}{suffix}", lambda atom=atom, priority=priority: bench.case(atom=atom, priority=priority)
        yield UNCUT + suffix + SELDOM, lambda priority=priority: bench.case(priority=priority, seldom=True)
        yield (f"tenant, atoms of {ATOMS[0]}{suffix}{SELDOM}",
               lambda priority=priority: bench.case(atom=ATOMS[0], priority=priority, seldom=True))
        yield alone


def bars(result):
    whole = result.median(BE_ALONE, "be_kernels_per_s")

    def reduction(case):
        uncut, p99 = result.median(UNCUT + (SELDOM if case.endswith(SELDOM) else ""), "p99_us"), result.median(case, "p99_us")
        return uncut / p99 if uncut and p99 else None

    def kept(case):
        rate = result.median(case, "be_kernels_per_s")
        return results.percent(rate, whole) if rate is not None and whole else None

    best = f"tenant, atoms of {ATOMS[0]}{PRIORITY}"
    result.bar("p99 reduction against MPS uncut", reduction(best), ">=", 20)
    result.bar("p99 reduction against MPS uncut, every 25 ms", reduction(best + SELDOM), ">=", 20)
    result.bar("BE kept %", kept(best), ">=", 90)
    for case in dict.fromkeys(c["case"] for c in result.doc["cases"]):
        r, k = reduction(case), kept(case)
        if r and k is not None:
            result.note(f"{case}: p99 {result.median(case, 'p99_us'):.0f} us, {r:.1f} times shorter than MPS uncut, BE kept {k:.0f} %.")
    result.note(f"The bars are those of \"{best}\"; \"BE kept\" is of the job alone, under MPS and uncut.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=3, help="measured seconds a case, in the card's time")
    p.add_argument("--warmup", type=float, default=1, help="of the job (default: %(default)s)")
    p.add_argument("--iters", type=int, default=13333, help="loop turns of the job's blocks: 10 ms a kernel")
    p.add_argument("--only", help="run only cases whose name has this in it, and what they are compared with")
    o, place = cli.start(p)
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("hol", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        for rep in result.repeat(o, begun):
            for name, run in cases(bench):
                if o.only and o.only not in name and name not in (ALONE, BE_ALONE, UNCUT, UNCUT + SELDOM):
                    continue
                try:
                    got = run()
                    result.case(name, rep, **got)
                    log(f"[{rep}/{o.repetitions}] {name}:", ", ".join(f"{k} {v}" for k, v in got.items()))
                except Failed as e:
                    failures += 1
                    result.case(name, rep, error=str(e)[:1000])
                    log(f"[{rep}/{o.repetitions}] {name}: FAILED: {e}")
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times are given in the card's time.")
        bars(result)
        missed = result.write(o.out)
    sys.exit(1 if failures or missed else 0)


main()
