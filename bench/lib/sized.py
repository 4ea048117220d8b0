"""Right-sizing on a card: a service by itself and beside a best-effort neighbour, with its slip and without by turns."""
import time

from lib import models, results, servers
from lib.place import virtual
from lib.proc import Child, Failed, log

SERVICES = ["resnet50 inference", "bert inference", "llama prefill", "llama decode"]


def add_options(p):
    p.add_argument("--learn", type=float, default=20, help="on a card: seconds of the card's time that a service runs with its slip "
                   "before it is measured (default: %(default)s)")
    p.add_argument("--window", type=float, default=4, help="on a card: seconds of a turn (default: %(default)s)")
    p.add_argument("--beside", metavar="MODEL", help="on a card: the best-effort neighbour, one of bench/models or burn (short kernels); "
                   "none: nobody (default: llama training; with --virtual burn)")
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

    def turn(self, on, neighbour=None):
        self.switch(self.slip if on else "off")
        self.run(self.o.window / 8)
        models.settle()
        before = self.d.tenant("service")
        if neighbour:
            neighbour.begin()
        figures = self.run(self.o.window)
        neighbours = neighbour.end_window() if neighbour else {}
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
            strip = before["rightsize"].get("strip", {})
            out |= {f"strip_{k}": r["strip"][k] - strip.get(k, 0) for k in ("requests", "unused", "narrowed", "met")}
            out["strip_tpcs"] = r["strip"]["tpcs"]
        return {k: round(v, 4) for k, v in (out | neighbours).items()}


class Neighbour:
    """Best-effort, owns nothing, and launches without end. Its speed is its kernels a second, as lithosd sees them."""

    def __init__(self, o, d, scratch, name):
        self.o, self.d = o, d
        if name == "burn":
            program = [o.place.program("lithos-burn"), "--grid", "400", "--iters", "3000", "--seconds", "0", "--time-scale", f"{o.scale:g}"]
        else:
            program = models.command(o, name, "--seconds", "100000")
        self.child = Child(d.run("0", "neighbour", program, ["--class", "best-effort", "--atom", "250us"]),
                           models.environment(d.env, scratch, o.python), scratch.path / "neighbour.err")
        deadline = time.monotonic() + o.model_timeout
        while not self.kernels():
            if time.monotonic() > deadline or self.child.popen.poll() is not None:
                raise Failed(f"the neighbour launches nothing. {self.child.why()}")
            time.sleep(0.1)

    def kernels(self):
        try:
            return (self.d.tenant("neighbour")["observed"] or {}).get("kernels", 0)
        except Failed:
            return 0

    def begin(self):
        self.at, self.before = time.monotonic(), self.kernels()

    def end_window(self):
        return {"be_kernels_per_s": (self.kernels() - self.before) / (time.monotonic() - self.at) * self.o.scale}

    def alone(self):
        self.begin()
        time.sleep(self.o.window * self.o.scale)
        return self.end_window()

    def end(self):
        self.child.kill()


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


def turns(o, s, result, name, neighbour=None):
    for rep in range(1, o.repetitions + 1):
        for on in ((False, True) if rep % 2 else (True, False)):
            case = f"{name}, {'slip' if on else 'whole'}"
            figures = s.turn(on, neighbour)
            result.case(case, rep, **figures)
            log(f"[{rep}] {case}: {figures}")


def gained(result, name, beside, be_alone):
    """What both make of the card together, each over what it does alone: how much more with the slip, in percent."""
    own = results.median(result.figures(f"{name}, whole", "per_s"))
    rates = [[results.median(result.figures(f"{beside}, {way}", key)) for key in ("per_s", "be_kernels_per_s")] for way in ("slip", "whole")]
    with_, without = (service / own + be / be_alone for service, be in rates)
    return 100 * (with_ / without - 1)


def beside_it(o, d, scratch, s, result, name):
    """The same with a neighbour: compare()'s figures, and what is gained."""
    what = o.beside or ("burn" if virtual() else "llama training")
    if what == "none":
        return None
    beside = f"{name}, beside {what}"
    n = Neighbour(o, d, scratch, what)
    try:
        time.sleep(o.window * o.scale / 4)
        alone = n.alone()
        result.case(f"{what}, alone", 1, **alone)
        s.switch(s.slip)
        s.run(o.learn / 2)
        log(f"{beside}: after a while, {d.tenant('service')['rightsize']['strip']}")
        turns(o, s, result, beside, n)
    finally:
        n.end()
    out = compare(result, beside, o.repetitions)
    if out and alone["be_kernels_per_s"]:
        out["gained"] = gained(result, name, beside, alone["be_kernels_per_s"])
        log(f"{beside}: both together {out['gained']:+.1f} %")
    return out


def one(o, place, scratch, result, name, slip):
    """What its slip makes of it: by itself, and beside a neighbour (None: there is none)."""
    with servers.Lithosd(place, scratch, args=["--rightsize=on"]) as d:
        s = Service(o, d, scratch, name, slip)
        try:
            begin = time.monotonic()
            s.run(o.learn)
            log(f"{name}: learnt for {time.monotonic() - begin:.0f} s, {d.tenant('service')['rightsize']}")
            turns(o, s, result, name)
            beside = beside_it(o, d, scratch, s, result, name)
            s.child.end()
        finally:
            s.child.kill()
    return compare(result, name, o.repetitions), beside


def measure(o, place, result, slip):
    """Failures."""
    failures, got, together = 0, [], []
    o.place = place
    with servers.Scratch() as scratch:
        for name in models.choose(o, result):
            try:
                compared, beside = one(o, place, scratch, result, name, slip)
                got += [compared] if compared else []
                together += [beside] if beside and "gained" in beside else []
                failures += not compared
            except Failed as e:
                failures += 1
                result.note(f"{name}: {e}")
                log(f"{name}: FAILED: {e}")

    def over(key, how, of=got):
        return how([g[key] for g in of]) if of else None
    result.bar("TPC time saved %", over("tpc_time_saved_percent", lambda v: sum(v) / len(v)), ">=", 26)
    result.bar("p99 added %", over("p99_added_percent", max), "<=", 4)
    result.bar("throughput lost %", over("throughput_lost_percent", max), "<=", 4)
    result.bar("p99 added %, slip", over("p99_added_percent", max), "<=", 100 * (slip - 1))
    result.bar("p99 added %, beside", over("p99_added_percent", max, together), "<=", 4)
    result.bar("throughput lost %, beside", over("throughput_lost_percent", max, together), "<=", 4)
    result.bar("aggregate throughput gained %, beside", over("gained", lambda v: sum(v) / len(v), together), ">", 0)
    result.note("A service at a time, alone on the card, requests one after the other. With its slip and without by turns in one process; "
                "with it one request in 8, later in 32, has all TPCs, and counts. TPC time is that of all its kernels, durations times "
                "the TPCs that they were confined to. Beside a best-effort neighbour, which owns nothing, added and lost are against the turns "
                "without the slip, in which it is lent what is idle; together is the sum of both, each over what it does alone.")
    if o.virtual:
        result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card.")
    return failures
