"""Energy by the governor on the virtual GPU: lithosd --power=on sets the clocks of the virtual NVML while a recorded model is replayed
as a program (lithos-replay). Energy and clock are read from NVML, latencies are the program's own."""
import ctypes
import json
import time

from lib import cli, replay, servers
from lib.place import HERE
from lib.replay import HELD_UP
from lib.proc import Child, Failed, log

OFF, LOOP, FORMULA = "off", "loop", "formula"
LAWS = {LOOP: "latency", FORMULA: "formula"}
# How long the program is idle between two requests (us of the card's time), and how long lithosd takes for their end: longer than
# any pause within one; and how many windows long it is measured, since there are fewer requests in one.
BUSY, PAUSED = {"think_us": 50, "pause_us": 25, "windows": 1}, {"think_us": 1000, "pause_us": 800, "windows": 2}
GPU_CLOCK_SM = 1
READY_S = 60
MODELS = "bert-inference,llama-decode"


def card_document(place, name):
    path = next((p for p in (place.root / f"share/lithos/cards/{name}.json", HERE.parent / f"src/model/cards/{name}.json") if p.exists()), None)
    if not path:
        raise SystemExit(f"bench: --card {name}: there is no such card")
    return json.loads(path.read_text())


def add_options(p):
    p.add_argument("--window", type=float, default=0.3, help="with --virtual: seconds measured, of the card's time, twice that with the app's pauses "
                   "(default: %(default)s)")
    p.add_argument("--steady", type=float, default=0.2, help="with --virtual: for so long a clock has to stay before it (default: %(default)s)")
    p.add_argument("--settle", type=float, default=2, help="with --virtual: after so long it is measured all the same (default: %(default)s)")
    p.add_argument("--only", help="with --virtual: only cases whose name has one of these in it (with ; between)")
    p.add_argument("--slips", default="1.1,1.07", help="with --virtual: with commas between; the formula without pauses has all of them, to be compared "
                   "with the loop where p99 comes out alike, all else the first (default: %(default)s)")


def models(o):
    return (o.models or MODELS).split(",")


def vgpud(o, place):
    """What lithos-vgpud is told: kernels that cost what was recorded, and a clock that anybody may set and that has changed when lithosd,
    whose clock is the machine's, thinks that it has."""
    card = card_document(place, o.card)
    card["power"]["switch_us"] = max(1, int(card["power"]["switch_us"] / o.scale))
    costs = replay.costs([replay.Replay(m, card) for m in models(o)])
    return ["--card", cli.in_memory(json.dumps(card)), "--cost", cli.in_memory(costs), "--clock-rights=anybody"]


class Nvml:
    def __init__(self):
        self.lib, self.device = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        self.must("nvmlInit_v2")
        self.must("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(self.device))

    def must(self, name, *args):
        result = getattr(self.lib, name)(*args)
        if result:
            raise Failed(f"{name} failed with {result}")

    def mhz(self):
        value = ctypes.c_uint()
        self.must("nvmlDeviceGetClockInfo", self.device, GPU_CLOCK_SM, ctypes.byref(value))
        return value.value

    def joules(self):
        value = ctypes.c_ulonglong()
        self.must("nvmlDeviceGetTotalEnergyConsumption", self.device, ctypes.byref(value))
        return value.value / 1e3


def settled(o, d, nvml, highest, way):
    """Until the clock was lowered for this tenant and the governor would have it stay: whether that was in time. The formula knows no
    staying: it follows what it makes of the latest kernels."""
    limit = o.settle * o.scale * (1 if way == LOOP else 0.3)
    begin = since = time.monotonic()
    last, known = nvml.mhz(), False
    while time.monotonic() - begin < limit:
        time.sleep(0.05)
        mhz = nvml.mhz()
        if mhz != last:
            last, since = mhz, time.monotonic()
        known |= last == highest  # where it begins, and where new kernels bring it back to
        if known and last < highest and time.monotonic() - since >= o.steady * o.scale:
            if d.status()["power"]["gpus"][0]["advice"]["why"] == "stay":
                return True
    if d.status()["power"]["mode"] != "on":
        raise Failed("lithosd may not set clocks")
    return False


def window(o, nvml, child, length_s):
    """(the program's figures, those of the card) of so long."""
    child.tell("go")
    begin, begin_j, clocks = time.monotonic(), nvml.joules(), []
    end = begin + length_s * o.scale
    while time.monotonic() < end:
        clocks.append(nvml.mhz())
        time.sleep(0.05)
    seconds, joules = (time.monotonic() - begin) / o.scale, nvml.joules() - begin_j
    served = child.result(READY_S + length_s * o.scale)
    if not served["requests"]:
        raise Failed("no request was served")
    watts = joules / seconds
    return served, {"watts": round(watts, 2), "joules_per_request": round(watts / served["rate_per_s"], 5), "mhz_mean": round(sum(clocks) / len(clocks), 1),
                    "mhz_min": min(clocks), "mhz_max": max(clocks)}


def one(bench, d, program, kind, way, slip):
    """A model by itself under d, which has the card in hand by `way`. Its figures."""
    o, place, scratch, nvml = bench.o, bench.place, bench.scratch, bench.nvml
    argv = [place.program("lithos-replay"), "--kernels", program, "--think-us", str(kind["think_us"]), "--seconds", str(o.window * kind["windows"]), "--warmup", "0.02",
            "--gate", "--json", "--time-scale", f"{o.scale:g}", *(["--no-pauses"] if kind is BUSY else [])]
    with Child(d.run("100%", "service", argv, ["--slip", f"{slip:g}"]), d.env, scratch.path / "service.err") as child:
        child.expect("ready", READY_S)
        in_time = way == OFF or settled(o, d, nvml, bench.highest_mhz, way)
        served, card = window(o, nvml, child, o.window * kind["windows"])
    out = {k: served[k] for k in ("requests", "rate_per_s", "mean_us", "p50_us", "p90_us", "p99_us", "max_us")} | card
    return out if in_time else out | {"not_settled": 1}


class Bench:
    def __init__(self, o, place, scratch, result):
        self.o, self.place, self.scratch, self.result = o, place, scratch, result
        self.nvml, self.failures, self.folders = Nvml(), 0, 0
        card = card_document(place, o.card)
        self.highest_mhz = card["power"]["max_mhz"]
        self.programs = {m: replay.Replay(m, card) for m in models(o)}
        self.lists = {m: r.write(scratch.path) for m, r in self.programs.items()}
        self.slips = [float(x) for x in o.slips.split(",")]

    def lithosd(self, kind, way):
        """A daemon of its own: an earlier way's would have set the clock."""
        args = [] if way == OFF else ["--power=on", "--these-gpus-are-ours-alone", f"--power-law={LAWS[way]}",
                                      "--power-pause", f"{kind['pause_us'] * self.o.scale:.0f}"]
        self.folders += 1
        return servers.Lithosd(self.place, self.scratch, f"ld{self.folders}", args)

    def cases(self, kind, way):
        """(model, slip) of those that are wanted."""
        slips = self.slips if way == FORMULA and kind is BUSY else self.slips[:1]
        return [(m, s) for m in self.programs for s in slips
                if not self.o.only or any(word in name(m, kind, way, s) for word in self.o.only.split(";"))]

    def repetition(self, rep):
        for kind in (BUSY, PAUSED):
            alone = {}  # by model
            for way in (OFF, LOOP, FORMULA):
                wanted = self.cases(kind, way)
                if not wanted:
                    continue
                with self.lithosd(kind, way) as d:
                    for model, slip in wanted:
                        self.case(d, rep, model, kind, way, slip, alone)

    def case(self, d, rep, model, kind, way, slip, alone):
        case = name(model, kind, way, slip)
        try:
            got = one(self, d, self.lists[model], kind, way, slip)
        except Failed as e:
            self.failures += 1
            self.result.case(case, rep, error=str(e)[:1000])
            log(f"[{rep}] {case}: FAILED: {e}")
            return
        if way == OFF:
            alone[model] = got
        elif model in alone:
            base = alone[model]
            got |= {"energy_saved_percent": round(100 * (1 - got["joules_per_request"] / base["joules_per_request"]), 3),
                    "power_saved_percent": round(100 * (1 - got["watts"] / base["watts"]), 3)}
            got |= {f"{k}_added_percent": round(100 * (got[f"{k}_us"] / base[f"{k}_us"] - 1), 3) for k in ("mean", "p50", "p99")}
        self.result.case(case, rep, **got)
        log(f"[{rep}] {case}:", ", ".join(f"{k} {v:g}" for k, v in got.items()))


def name(model, kind, way, slip):
    return model + (", the app's pauses" if kind is PAUSED else "") + f", {way}" + ("" if way == OFF else f", slip {slip:g}")


def mean(result, names, key):
    values = [result.median(n, key) for n in names]
    return None if not values or None in values else sum(values) / len(values)


def most(result, names, key):
    values = [result.median(n, key) for n in names]
    return None if not values or None in values else max(values)


def between(points, x):
    """y at x on the line through points in the order of x; beyond them, that of the nearest."""
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else max(y0, y1)
    return points[0][1] if x < points[0][0] else points[-1][1]


def over_formula(result, models, kind, slips, quantile):
    """How much more the loop saves than the formula, mean of the models: where the formula would add as much to a quantile, which is on the lines between
    its slips and the highest clock, at which nothing is added or saved. With the app's pauses neither adds anything, and the two are compared as they are."""
    more = []
    for model in models:
        def point(way, slip):
            return [result.median(name(model, kind, way, slip), k) for k in (f"{quantile}_added_percent", "energy_saved_percent")]
        formula, (added, saved) = [point(FORMULA, s) for s in slips], point(LOOP, slips[0])
        if None in [added, saved, *sum(formula, [])]:
            return None
        more.append(saved - between(sorted(formula + ([[0, 0]] if kind is BUSY else [])), added))
    return sum(more) / len(more)


def bars(result, models, slips):
    """Of each run (kind, way, slip): energy a request saved, mean of the models; p50 and p99 added, the worst of them."""
    def saved(*run):
        return mean(result, [name(m, *run) for m in models], "energy_saved_percent")

    def added(quantile, *run):
        return most(result, [name(m, *run) for m in models], f"{quantile}_added_percent")

    for kind, what in ((BUSY, ""), (PAUSED, ", the app's pauses")):
        result.bar(f"energy saved %, loop at slip {slips[0]:g}{what}", saved(kind, LOOP, slips[0]), ">=", 26)
        for q in ("p99", "p50"):
            result.bar(f"{q} added %, loop at slip {slips[0]:g}{what}", added(q, kind, LOOP, slips[0]), "<=", 7)
        for q in ("p99", "p50"):
            result.bar(f"energy saved %, loop over formula at equal {q}{what}",
                       over_formula(result, models, kind, slips[:1] if kind is PAUSED else slips, q), ">", 0)


def measure(o, place, result):
    begun = time.monotonic()
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch, result)
        for rep in result.repeat(o, begun):
            bench.repetition(rep)
    for model, program in bench.programs.items():
        result.note(f"{model}: {len(program.lines)} kernels, {program.kernel_us:.0f} us of them a request, sensitivity {program.sensitive_us / program.kernel_us:.2f}.")
    result.note("Added and saved are against the same model with the clock left alone in the same repetition; energy is joules a request, by the virtual "
                "NVML's counter. Requests one after the other; as recorded with the app's pauses, and launched as fast as the card takes it. "
                f"Kernels that memory holds up, by name (lib/scenarios.py), feel {HELD_UP:g} of the clock, all others all of it. The clock changes within "
                "50 ms of lithosd's time, which is the machine's. p99 is the worst or the second of a window's 40 to 120 requests, so that any delay of the machine's own is in it: p50 tells "
                "what the clock alone does, and so do repetitions that differ.")
    if any(not p.as_recorded for p in bench.programs.values()):
        result.note("Where a recording has no durations of its own for most kernels (ResNet-50's) they are those of bench/results/h200/scaling.json.")
    result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times and watts are given in the card's time.")
    bars(result, models(o), bench.slips)
    result.end(o.out, bench.failures)
