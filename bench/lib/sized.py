"""Right-sizing on a card: a service by itself and beside a best-effort neighbour, with its slip and without by turns."""
import statistics
import time

from lib import models, results, servers
from lib.place import virtual
from lib.proc import Child, Failed, log

# A neighbour is warm when so many windows were no faster than the fastest before by this factor; at the latest after so long.
WARM_WINDOWS, WARM_FASTER, WARM_S = 3, 1.1, 30
SERVICES = ["resnet50 inference", "bert inference", "llama prefill", "llama decode"]


def add_options(p):
    p.add_argument("--learn", type=float, default=20, help="on a card: seconds of the card's time that a service runs with its slip "
                   "before it is measured (default: %(default)s)")
    p.add_argument("--window", type=float, default=2, help="on a card: seconds with its slip, and as many without, of a repetition "
                   "(default: %(default)s)")
    p.add_argument("--turns", type=int, default=4, help="on a card: into which these are cut, by turns, for hosts are faster in one second "
                   "than in the next (default: %(default)s)")
    p.add_argument("--close", type=float, default=6, metavar="S", help="on a card: seconds with its slip, and as many without, of a repetition in "
                   "turns of a tenth of a second, which are what latency and throughput are told by where nobody is beside it; 0: told by the longer turns "
                   "(default: %(default)s)")
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
        """A turn of a repetition."""
        ran = Ran(self.o.scale)
        seconds = self.o.window / self.o.turns
        self.switch(self.slip if on else "off")
        self.run(seconds / 8)
        models.settle()
        before = self.d.tenant("service")
        if neighbour:
            neighbour.begin()
        figures = self.run(seconds)
        if neighbour:
            neighbour.end_window(ran)
            ran.neighbour = self.d.explain("neighbour")
        models.settle()
        ran.take(figures, before, self.d.tenant("service"))
        return ran


CLOSE_S = 0.1


class Close:
    """A service with its slip and without by short turns: a host that is slow for a second slows both. What each request took (of a decoder
    each token), but for the first of each turn, which may have begun the other way."""

    def __init__(self, o, s):
        self.o, self.s = o, s
        self.us = {True: [], False: []}
        self.seconds = 0  # with it and without

    def turn(self, on):
        self.s.switch(self.s.slip if on else "off")
        figures = self.s.run(CLOSE_S)
        self.us[on] += (figures.get("piece_us") or figures["us"])[1:]
        self.seconds += figures["seconds"] / self.o.scale

    def run(self):
        """What it took with the slip and without, and by how much that is more; None: there were too few requests."""
        first = True
        while self.seconds < 2 * self.o.close:
            self.turn(first)
            self.turn(not first)
            first = not first
        if not all(self.us.values()):
            return None
        took = {name: {on: how(us) for on, us in self.us.items()} for name, how in
                (("p50", results.median), ("p99", lambda us: results.quantile(us, 0.99)), ("mean", statistics.fmean))}
        out = {"requests": len(self.us[True]), "whole_requests": len(self.us[False])}
        for name, of in took.items():
            out |= {f"{name}_us": round(of[True] / self.o.scale, 3), f"whole_{name}_us": round(of[False] / self.o.scale, 3)}
        out |= {f"{name}_added_percent": round(100 * (took[name][True] / took[name][False] - 1), 3) for name in ("p50", "p99")}
        return out | {"throughput_lost_percent": round(100 * (1 - took["mean"][False] / took["mean"][True]), 3)}


class Ran:
    """A turn, or some of one kind."""

    def __init__(self, scale):
        self.scale = scale
        self.us, self.seconds, self.tpc_s, self.kernels, self.kernel_s = [], 0, 0, 0, 0
        self.told, self.last = {}, {}  # sums; as it is at the end
        self.neighbour = None  # what lithosd says of the second before the end, where turns are that long

    def take(self, figures, before, after):
        self.us, self.seconds = figures["us"], figures["seconds"]
        self.tpc_s = after["observed"]["tpc_time_s"] - before["observed"]["tpc_time_s"]
        b, a = before["rightsize"], after["rightsize"]
        if "strip" not in a:
            return  # it is switched off
        self.told = {key: a[key] - b.get(key, 0) for key in ("undone", "stopped", "spoilt", "references")}
        self.told |= {f"strip_{key}": a["strip"][key] - b.get("strip", {}).get(key, 0) for key in ("requests", "unused", "narrowed", "met", "dear", "whole")}
        self.last = {"slip_in_force": a["slip_in_force"], "sized_operators": sum(x["tpcs"] < x["of"] for x in a["operators"]),
                     "strip_tpcs": a["strip"]["tpcs"], "strip_bears_us": a["strip"]["bears_us"], "strip_used_percent": round(a["strip"]["used_percent"], 1)}

    def add(self, other):
        self.us = self.us + other.us
        for name in ("seconds", "tpc_s", "kernels", "kernel_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.told = {key: value + self.told.get(key, 0) for key, value in other.told.items()}
        self.last, self.neighbour = other.last, other.neighbour

    def figures(self):
        """In the card's time."""
        if not self.us:
            raise Failed("the service served nothing")
        out = {"p50_us": results.quantile(self.us, 0.5) / self.scale, "p99_us": results.quantile(self.us, 0.99) / self.scale,
               "per_s": len(self.us) / self.seconds * self.scale, "tpc_ms_a_request": 1e3 * self.tpc_s / len(self.us),
               "requests": len(self.us)} | self.told | self.last
        if self.kernel_s:
            out["be_kernels_per_s"] = self.kernels / self.kernel_s * self.scale
        return {k: round(v, 4) for k, v in out.items()} | self.waited()

    def waited(self):
        """Why the neighbour had no more TPCs, and what its launches waited for."""
        if not self.neighbour:
            return {}
        return {f"be_{key}": told for key, told in servers.as_borrower(self.neighbour).items()}


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

    def end_window(self, ran):
        ran.kernels += self.kernels() - self.before
        ran.kernel_s += time.monotonic() - self.at

    def speed(self, seconds):
        """Kernels a second of the card's time."""
        ran = Ran(self.o.scale)
        self.begin()
        time.sleep(seconds * self.o.scale)
        self.end_window(ran)
        return ran.kernels / ran.kernel_s * self.o.scale

    def alone(self):
        """The same once it is as fast as it becomes: a framework's first iterations load its kernels."""
        seconds, best, near = self.o.window / 4, 0, 0
        deadline = time.monotonic() + WARM_S * self.o.scale
        while near < WARM_WINDOWS and time.monotonic() < deadline:
            now = self.speed(seconds)
            near = near + 1 if now and now < best * WARM_FASTER else 0
            best = max(best, now)
        return self.speed(2 * seconds)

    def end(self):
        self.child.kill()


ADDED = {"tpc_time_saved_percent": ("tpc_ms_a_request", -1), "p50_added_percent": ("p50_us", 1), "p99_added_percent": ("p99_us", 1),
         "throughput_lost_percent": ("per_s", -1)}


def differences(pairs):
    """With the slip over without: the median over pairs of turns that lie beside each other, so that a host that is slow for seconds slows
    both of a pair."""
    figures = [(with_.figures(), without.figures()) for with_, without in pairs]
    return {name: round(sign * 100 * (results.median([w[key] / wo[key] for w, wo in figures]) - 1), 3)
            for name, (key, sign) in ADDED.items()}


def compare(result, name, reps):
    """What the turns with a slip differ by from those without, by the median of the repetitions; latency and throughput by short turns, where
    there were any."""
    got = {key: result.figures(f"{name}, close", key) or result.figures(f"{name}, slip", key) for key in ADDED}
    if not all(got.values()):
        return None
    out = {key: results.median(values) for key, values in got.items()}
    result.case(f"{name}, compared", reps, **{k: round(v, 3) for k, v in out.items()})
    return out


def turns(o, s, result, name, neighbour=None):
    for rep in range(1, o.repetitions + 1):
        ran, pairs = {False: Ran(o.scale), True: Ran(o.scale)}, []
        for i in range(o.turns):
            pair = {on: s.turn(on, neighbour) for on in ((False, True) if (rep + i) % 2 else (True, False))}
            pairs.append((pair[True], pair[False]))
            for on, turn in pair.items():
                ran[on].add(turn)
        for on, r in ran.items():
            case = f"{name}, {'slip' if on else 'whole'}"
            figures = r.figures() | (differences(pairs) if on else {})
            result.case(case, rep, **figures)
            log(f"[{rep}] {case}: {figures}")
        close = Close(o, s).run() if o.close and not neighbour else None
        if close:
            result.case(f"{name}, close", rep, **close)
            log(f"[{rep}] {name}, close: {close}")


def gained(result, name, beside, be_alone, reps, lost_percent):
    """What both make of the card together, each over what it does alone: how much more with the slip, in percent."""
    own = results.median(result.figures(f"{name}, whole", "per_s"))
    whole = results.median(result.figures(f"{beside}, whole", "per_s")) / own
    sized = whole * (1 - lost_percent / 100)
    be, be_whole = (results.median(result.figures(f"{beside}, {way}", "be_kernels_per_s")) / be_alone for way in ("slip", "whole"))
    more = 100 * ((sized + be) / (whole + be_whole) - 1)
    result.case(f"{beside}, together", reps, service_kept_percent=round(100 * sized, 2), whole_service_kept_percent=round(100 * whole, 2),
                be_kept_percent=round(100 * be, 2), whole_be_kept_percent=round(100 * be_whole, 2), gained_percent=round(more, 3))
    return more


def beside_it(o, d, scratch, s, result, name):
    """The same with a neighbour: compare()'s figures, and what is gained."""
    what = o.beside or ("burn" if virtual() else "llama training")
    if what == "none":
        return None
    beside = f"{name}, beside {what}"
    n = Neighbour(o, d, scratch, what)
    try:
        alone = n.alone()
        result.case(f"{what}, alone, at {name}", 1, be_kernels_per_s=round(alone, 3))
        s.switch(s.slip)
        s.run(o.learn / 2)
        log(f"{beside}: after a while, {d.tenant('service')['rightsize']['strip']}")
        turns(o, s, result, beside, n)
    finally:
        n.end()
    out = compare(result, beside, o.repetitions)
    if out and alone:
        out["gained"] = gained(result, name, beside, alone, o.repetitions, out["throughput_lost_percent"])
        log(f"{beside}: both together {out['gained']:+.1f} %")
    return out


def one(o, place, scratch, result, name, slip, alone, together):
    """What its slip makes of it, into the lists: by itself, and beside a neighbour, each as soon as it is known, for the end may come by a signal.
    Whether all of it was measured."""
    with servers.Lithosd(place, scratch, args=["--rightsize=on"]) as d:
        s = Service(o, d, scratch, name, slip)
        try:
            begin = time.monotonic()
            s.run(o.learn)
            log(f"{name}: learnt for {time.monotonic() - begin:.0f} s, {d.tenant('service')['rightsize']}")
            turns(o, s, result, name)
            compared = compare(result, name, o.repetitions)
            alone += [compared] if compared else []
            beside = beside_it(o, d, scratch, s, result, name)
            together += [beside] if beside and "gained" in beside else []
            s.child.end()
        finally:
            s.child.kill()
    return bool(compared)


def measure(o, place, result, slip):
    """Failures."""
    failures, got, together = 0, [], []
    o.place = place
    with servers.Scratch() as scratch, result.keeps_what_was_measured():
        for name in models.choose(o, result):
            try:
                failures += not one(o, place, scratch, result, name, slip, got, together)
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
    if o.beside == "none":
        result.note("Nobody was beside it.")
    else:
        result.bar("p99 added %, beside", over("p99_added_percent", max, together), "<=", 4)
        result.bar("throughput lost %, beside", over("throughput_lost_percent", max, together), "<=", 4)
        result.bar("aggregate throughput gained %, beside", over("gained", lambda v: sum(v) / len(v), together), ">", 0)
    by = "turns of a tenth of a second (of a decoder each token is a request there)" if o.close else "the same turns"
    result.note("A service at a time, alone on the card, requests one after the other. With its slip and without by turns in one process, "
                f"saved being medians over pairs of turns beside each other, and added and lost by {by}; with it one request in 8, later in 32, has all TPCs, and counts. TPC time is that of all its kernels, durations times "
                "the TPCs that they were confined to. Beside a best-effort neighbour, which owns nothing, added and lost are against the turns "
                "without the slip, in which it is lent what is idle; together is the sum of both, each over what it does alone.")
    if o.virtual:
        result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card.")
    return failures
