"""Right-sizing on a card: a service by itself, with its slip and without by turns."""
import time

from lib import models, results, servers
from lib.proc import Failed, log

SERVICES = ["resnet50 inference", "bert inference", "llama prefill", "llama decode"]


def add_options(p):
    p.add_argument("--learn", type=float, default=20, help="on a card: seconds of the card's time that a service runs with its slip "
                   "before it is measured (default: %(default)s)")
    p.add_argument("--window", type=float, default=4, help="on a card: seconds of a turn (default: %(default)s)")
    p.add_argument("--batches", default="", metavar="FROM-TO", help="on a card: each request of another batch size")
    p.add_argument("--python", help="on a card: the Python that has the frameworks")
    p.add_argument("--model-timeout", type=float, default=400, metavar="S",
                   help="on a card: for a model to be loaded and warm (default: %(default)s)")


class Service:
    """A model that has the whole card, under lithosd."""

    def __init__(self, o, d, scratch, name, slip):
        self.o, self.d, self.slip = o, d, slip
        argv = d.run("100%", "service", models.command(o, name, "--obey", *(["--batch", o.batches] if o.batches else [])),
                     ["--slip", str(slip)])
        self.child = models.warm(models.Model(o, argv, models.environment(d.env, scratch, o.python),
                                              scratch.path / f"{name.replace(' ', '-')}.err", "service"))

    def run(self, seconds):
        """Requests one after the other for so long, of the card's time: run.py's figures."""
        return self.child.do(f"seconds {seconds * self.o.scale:g}", 120 + 10 * seconds * self.o.scale)

    def switch(self, slip):
        self.d.set("service", "--slip", slip)

    def turn(self, on):
        self.switch(self.slip if on else "off")
        self.run(self.o.window / 8)
        models.settle()
        before = self.d.tenant("service")
        figures = self.run(self.o.window)
        models.settle()
        after = self.d.tenant("service")
        if not figures["iterations"]:
            raise Failed("the service served nothing")
        spent = after["observed"]["tpc_time_s"] - before["observed"]["tpc_time_s"]
        out = {"p50_us": figures["p50_us"], "p99_us": figures["p99_us"], "per_s": figures["iterations_per_s"],
               "tpc_ms_a_request": 1e3 * spent / figures["iterations"], "requests": figures["iterations"]}
        if on:
            r = after["rightsize"]
            out |= {k: r[k] - before["rightsize"].get(k, 0) for k in ("undone", "stopped", "spoilt", "references")}
            out |= {"slip_in_force": r["slip_in_force"], "sized_operators": sum(x["tpcs"] < x["of"] for x in r["operators"])}
        return {k: round(v, 4) for k, v in out.items()}


def compare(result, name, reps):
    """What the turns with a slip differ by from those without, by the median of the repetitions."""
    def ratio(key):
        pairs = [(with_, without) for with_, without in zip(result.figures(f"{name}, slip", key), result.figures(f"{name}, whole", key))]
        return results.median([100 * (a / b - 1) for a, b in pairs if b]) if pairs else None
    out = {"tpc_time_saved_percent": ratio("tpc_ms_a_request"), "p99_added_percent": ratio("p99_us"),
           "throughput_lost_percent": ratio("per_s")}
    if None in out.values():
        return None
    out["tpc_time_saved_percent"] *= -1
    out["throughput_lost_percent"] *= -1
    result.case(f"{name}, compared", reps, **{k: round(v, 3) for k, v in out.items()})
    return out


def one(o, place, scratch, result, name, slip):
    with servers.Lithosd(place, scratch, args=["--rightsize=on"]) as d:
        s = Service(o, d, scratch, name, slip)
        try:
            begin = time.monotonic()
            s.run(o.learn)
            log(f"{name}: learnt for {time.monotonic() - begin:.0f} s, {d.tenant('service')['rightsize']}")
            for rep in range(1, o.repetitions + 1):
                for on in ((False, True) if rep % 2 else (True, False)):
                    case = f"{name}, {'slip' if on else 'whole'}"
                    figures = s.turn(on)
                    result.case(case, rep, **figures)
                    log(f"[{rep}] {case}: {figures}")
            s.child.end()
        finally:
            s.child.kill()
    return compare(result, name, o.repetitions)


def measure(o, place, result, slip):
    """Failures."""
    failures, got = 0, []
    with servers.Scratch() as scratch:
        for name in models.choose(o, result):
            try:
                compared = one(o, place, scratch, result, name, slip)
                got += [compared] if compared else []
                failures += not compared
            except Failed as e:
                failures += 1
                result.note(f"{name}: {e}")
                log(f"{name}: FAILED: {e}")

    def over(key, how):
        return how([g[key] for g in got]) if got else None
    result.bar("TPC time saved %", over("tpc_time_saved_percent", lambda v: sum(v) / len(v)), ">=", 26)
    result.bar("p99 added %", over("p99_added_percent", max), "<=", 4)
    result.bar("throughput lost %", over("throughput_lost_percent", max), "<=", 4)
    result.bar("p99 added %, slip", over("p99_added_percent", max), "<=", 100 * (slip - 1))
    result.note("A service at a time, alone on the card, requests one after the other. With its slip and without by turns in one process; "
                "with it one request in 8, later in 32, has all TPCs, and counts. TPC time is that of all its kernels, durations times "
                "the TPCs that they were confined to. What is left free is not lent yet, so that nobody gains by it.")
    if o.virtual:
        result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card.")
    return failures
