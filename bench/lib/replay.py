"""A recorded model as a program of the virtual GPU: the list of kernels that lithos-replay launches, and a cost file that says how each
feels the clock. What a trace does not say is assumed as the simulator's scenarios do (lib/scenarios.py)."""
import json
import statistics

from lib import scenarios, trace

# How much a kernel that memory holds up feels the SMs' clock. Paper 5.6: near 0.
HELD_UP = 0.1
# Of a recording in which more kernels than this have no duration of their own (trace.CLAMPED) kernels take what was measured of them since.
SPOILT = 0.5
SCALING = scenarios.TRACES.parent / "results/h200/scaling.json"


def recorded(model):
    """All kernels of a recording in the order of their launches as (event, it waited for all before it)."""
    kernels, waited = [], False
    happened = [(kind, e) for kind, e in trace.events((scenarios.TRACES / f"{model}.trace").read_bytes()) if kind in ("kernel", "sync")]
    for kind, e in sorted(happened, key=lambda x: x[1]["time"]):
        if kind == "sync":
            waited = True
            continue
        e["function"] = e["function"].decode(errors="replace")
        kernels.append((e, waited and bool(kernels)))
        waited = False
    if len(kernels) < scenarios.INFERENCE[model]:
        raise ValueError(f"the trace of {model} has less than a request")
    return kernels


def identity(e):
    return e["function"], e["gx"], e["gy"], e["gz"], e["bx"], e["by"], e["bz"], e["shared"]


def scaling(model):
    """(beginning of the function's name, grid): ns with all TPCs, as bench/scaling.py has measured them on an H200."""
    out, begins = {}, model.replace("-", " ") + ": "
    if SCALING.exists():
        for c in json.loads(SCALING.read_text())["cases"]:
            if c["case"].startswith(begins) and "us" in c:
                function, grid = c["case"][len(begins):].rsplit(" ", 1)
                out[function, grid] = int(c["us"][max(c["us"], key=int)] * 1e3)
    return out


def durations(model, kernels):
    """(ns of each kernel of the first request, whether the recording was of use): the median of what stands at its place in all requests."""
    period = scenarios.INFERENCE[model]
    spoilt = statistics.fmean(bool(e["flags"] & trace.CLAMPED) for e, _ in kernels) > SPOILT
    known = scaling(model) if spoilt else {}
    out = []
    for place, (first, _) in enumerate(kernels[:period]):
        alike = [e for e, _ in kernels[place::period] if identity(e) == identity(first)]
        clean = [e for e in alike if not e["flags"] & trace.CLAMPED] or alike
        grid = f"{first['gx']}x{first['gy']}x{first['gz']}"
        since = next((ns for (function, g), ns in known.items() if g == grid and first["function"].startswith(function)), None)
        out.append(since or max(1, int(statistics.median(e["end"] - e["start"] for e in clean))))
    return out, not spoilt


def residency(sm, e):
    """Blocks that an SM holds, by what a block takes of it."""
    threads = -(-e["bx"] * e["by"] * e["bz"] // 32) * 32
    registers = threads // 32 * (-(-e["registers"] * 32 // sm["register_unit"]) * sm["register_unit"])
    holds = [sm["blocks"], sm["threads"] // threads, sm["shared_bytes"] // (e["shared"] + sm["shared_reserved_bytes"])]
    return max(1, min(holds + ([sm["registers"] // registers] if registers else [])))


def shape(sm, sms, e):
    """(blocks, share of an SM, sensitivity): at most a block an SM, which does what those of the recorded kernel did there."""
    blocks = e["gx"] * e["gy"] * e["gz"]
    fills = (residency(sm, e) + 1) // 2  # so many blocks use all that an SM has
    share = min(1.0, max(1.0, blocks / sms) / fills)
    wants = next(part for name, part in scenarios.MEMORY.items() if name in e["function"])
    used = share * min(blocks, sms) / sms
    return min(blocks, sms), round(max(share, 1e-4), 4), HELD_UP if wants * used > 1 else 1.0


class Replay:
    """model: a key of scenarios.INFERENCE; card: the virtual card's document."""

    def __init__(self, model, card):
        sm, sms = card["sm"], card["attributes"]["16"]
        self.model, self.lines, self.rules, self.names = model, [], {}, {}
        before, self.kernel_us, self.sensitive_us = None, 0, 0
        kernels = recorded(model)
        took, self.as_recorded = durations(model, kernels)
        for (e, waited), ns in zip(kernels, took):
            name = self.names.setdefault(identity(e), f"{model.replace('-', '_')}_{len(self.names)}")
            blocks, share, clock = shape(sm, sms, e)
            self.rules[name] = {"base_ns": 0, "param": 0, "ns_per_param": 1, "share": share, "share_threads": 0, "clock": clock, "group": 32}
            since = 0 if not before else min(before["end"], e["time"]) if waited else before["time"]
            pause = e["time"] - since if before else 0
            self.lines.append(f"{name} {blocks} 128 {ns} {pause} {int(waited)}\n")
            self.kernel_us += ns / 1e3
            self.sensitive_us += clock * ns / 1e3
            before = e

    def write(self, folder):
        path = folder / f"{self.model}.kernels"
        path.write_text("".join(self.lines))
        return str(path)


def costs(replays):
    """The text of a cost file for all of them."""
    return json.dumps({"kernels": {name: rule for r in replays for name, rule in r.rules.items()}})
