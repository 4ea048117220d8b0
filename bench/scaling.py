#!/usr/bin/env python3
"""How kernels of real models scale with TPCs, and how well l = m/t + b says it (paper 5.5, figure 12).

Each model runs as a tenant whose quota is changed while it is recorded, the record of each launch saying on how many TPCs it ran; every
kernel over 1 % of the time on all TPCs is fitted, by the median of its stamped durations at each width. Where a program launches more slowly than its kernels run, when one began is a
guess; with --gather they follow each other. Where iterations take long there are fewer of them. What could be saved follows: each kernel on the width that takes least
TPCs times time, of those that take at most --slip times as long as all TPCs."""
import collections
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, sized, trace  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

MODELS = ["resnet50 inference", "bert inference", "llama prefill", "llama decode", "vgg19 training"]
WIDTHS = "66,50,33,16,8,4,2,1"
SHARE = 0.01


def durations(path):
    """{(function, grid, block): {width: [ns]}}, and what is missing in the trace by reason; the width is what the launch was given, which clusters may have widened. Kernels whose
    times had to be moved (an app that launches no faster than they run) count only where there are no others."""
    sure, moved = (collections.defaultdict(lambda: collections.defaultdict(list)) for _ in range(2))
    kernels, missing = trace.load(path)
    for k in kernels:
        if k["end"] > k["start"]:
            shape = tuple(k[x] for x in ("gx", "gy", "gz", "bx", "by", "bz"))
            out = moved if k["flags"] & trace.CLAMPED else sure
            out[k["function"], shape][k["tpcs"].bit_count()].append(k["end"] - k["start"])
    for op, widths in moved.items():
        for width, ns in widths.items():
            if len(sure[op][width]) < 2:
                sure[op][width] = ns
    return sure, missing


def fit(points):
    """m, b of l = m/t + b through {t: l}, neither below 0; least squares of what each point is off by, in part of itself."""
    rows = [(1 / t, y, 1 / y ** 2) for t, y in points.items()]
    w, x, y, xx, xy = (sum(r[2] * f for r, f in zip(rows, fs)) for fs in (
        [1] * len(rows), [r[0] for r in rows], [r[1] for r in rows], [r[0] ** 2 for r in rows], [r[0] * r[1] for r in rows]))
    det = w * xx - x * x
    m = (w * xy - x * y) / det if det > 0 else 0
    b = (y - m * x) / w
    if m < 0:
        return 0, y / w
    return (m, b) if b >= 0 else (xy / xx, 0)


def r2(points, m, b):
    """Of the logarithms' scale: a kernel's times span two decades, and the short ones are what is used."""
    mean = statistics.fmean(points.values())
    total = sum((y - mean) ** 2 for y in points.values())
    return 1 - sum((y - m / t - b) ** 2 for t, y in points.items()) / total if total else 1.0


def warm(d, model, limit_s):
    """Some iterations at least, and until lithosd has the card's clock: a virtual card's is free, and shows its rate after a while."""
    for _ in range(100):
        model.do("run 2", limit_s)
        observed = d.tenant("model").get("observed") or {}
        if observed.get("clock", {}).get("offset_bound_us") is not None:
            return
    raise Failed("the card's clock does not become known")


def sweep(o, d, model, name, widths, rep, limit_s):
    """Has the model iterate on each number of TPCs, as often as o.seconds allow by what the width before took: {width: iterations}."""
    out, us, before = {}, model.do("run 1", limit_s)["p50_us"], max(widths)
    for width in widths:
        expected_us = us * max(1, before / width)
        out[width] = max(1, min(o.iterations, int(o.seconds * o.scale * 1e6 / expected_us)))
        d.set_quota("model", width)
        us, before = model.do(f"run {out[width]}", limit_s)["p50_us"], width
        log(f"[{rep}] {name}: {width} TPCs, {out[width]} iterations of {us / 1e3:.1f} ms")
    return out


def measure(o, place, scratch, name, widths, rep):
    """{operator: {width: median ns}}, and each one's share of the time at the widest."""
    path, limit_s = scratch.path / "scaling.trace", 600 * max(1, o.scale)
    with servers.Lithosd(place, scratch, f"ld{rep}-{name.replace(' ', '-')}") as d, \
            models.under_lithos(o, d, str(max(widths)), "model", name, scratch, options=["--gather", o.gather] if o.gather else ()) as model:
        log(f"[{rep}] {name}: loaded")
        warm(d, model, limit_s)
        with d.record(path, "model"):
            iterations = sweep(o, d, model, name, widths, rep, limit_s)
            models.settle()
    medians, spent = collections.defaultdict(dict), collections.Counter()
    took, missing = durations(path)
    path.unlink(missing_ok=True)
    for op, by_width in took.items():
        spent[op] = sum(by_width.get(max(widths), []))
        for width, ns in by_width.items():
            # where there are several iterations, what ran once is not what an iteration does
            if len(ns) >= min(2, iterations.get(width, 1)):
                medians[op][width] = statistics.median(ns)
    if not any(len(points) >= 3 for points in medians.values()):
        seen = collections.Counter(width for by_width in took.values() for width, ns in by_width.items() for _ in ns)
        raise Failed(f"{name}: no kernel has three widths: {dict(seen)} kernels by TPCs in {iterations} iterations, {missing} missing")
    whole = sum(spent.values())
    return medians, {op: ns / whole for op, ns in spent.items() if whole and ns >= SHARE * whole}


def could_save(points, slip):
    """Part of a kernel's TPC time that the best of the widths saves."""
    widest = max(points)
    whole = widest * points[widest]
    return 1 - min(t * ns for t, ns in points.items() if t == widest or ns <= slip * points[widest]) / whole


def one(o, place, scratch, result, name, widths, rep):
    """Fits, as cases; (R^2, weight) of each kernel."""
    medians, shares = measure(o, place, scratch, name, widths, rep)
    fits, saved = [], 0
    for (function, shape), share in sorted(shares.items(), key=lambda x: -x[1]):
        points = medians[function, shape]
        if len(points) < 3:
            continue
        m, b = fit(points)
        good = r2(points, m, b)
        fits.append((good, share))
        saved += share * could_save(points, o.slip)
        widest = max(points)
        enough = min((t for t in points if points[t] <= o.slip * points[widest]), default=widest)
        result.case(f"{name}: {function[:80]} {'x'.join(map(str, shape[:3]))}", rep, share_percent=round(100 * share, 3), r2=round(good, 5),
                    m_us_tpcs=round(m / 1e3, 3), b_us=round(b / 1e3, 3), enough_tpcs=enough,
                    us={str(t): round(ns / 1e3, 3) for t, ns in sorted(points.items())})
        if good < 0.9:
            result.note(f"Misfit: {name}: {function[:60]} (R^2 {good:.2f}, {100 * share:.1f} % of the time).")
    weight = sum(w for _, w in fits)
    if not fits:
        raise Failed(f"{name}: no kernel of {100 * SHARE:g} % of the time has three widths")
    result.case(name, rep, r2_by_time=round(sum(r * w for r, w in fits) / weight, 5), kernels=len(fits), of_the_time_percent=round(100 * weight, 2),
                could_save_percent=round(100 * saved / weight, 2))
    log(f"[{rep}] {name}: R^2 {sum(r * w for r, w in fits) / weight:.4f} over {len(fits)} kernels, could save {100 * saved / weight:.1f} %")
    return fits


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    models.add_options(p, MODELS)
    p.add_argument("--widths", default=WIDTHS, help="TPCs, the widest first (default: %(default)s)")
    p.add_argument("--iterations", type=int, default=6, help="at each width, at most (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=2, help="of the card's time at each width, or one iteration (default: %(default)s)")
    p.add_argument("--gather", metavar="T", help="of `lithos run` (default: as its launches come)")
    p.add_argument("--slip", type=float, default=1.1, help="what a kernel may take on fewer TPCs (default: %(default)s)")
    o, place = cli.start(p)
    widths = [int(w) for w in o.widths.split(",")]
    begun, failures, fits = time.monotonic(), 0, []
    with servers.Scratch() as scratch:
        result = results.Result("scaling" + ("-gathered" if o.gather else ""), cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        for rep in range(1, o.repetitions + 1):
            for name in models.choose(o, result):
                if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                    result.note(f"{name}: not run, time ran out.")
                    continue
                try:
                    fits += one(o, place, scratch, result, name, widths, rep)
                except (Failed, OSError, ValueError) as e:
                    failures += 1
                    result.case(name, rep, error=str(e)[:1000])
                    log(f"[{rep}] {name}: FAILED: {e!r}")
        weight = sum(w for _, w in fits)
        could = [result.median(name, "could_save_percent") for name in sized.SERVICES]
        if None not in could:
            result.note(f"{', '.join(sized.SERVICES)}: {statistics.fmean(could):.1f} % of their TPC time could be saved, in the mean.")
        result.bar("R^2 weighted by time", sum(r * w for r, w in fits) / weight if weight else None, ">=", 0.92)
        result.note("us: median duration by the TPCs that the launch was given; enough_tpcs: the fewest measured that take at most --slip times the "
                    "time on all. could_save_percent: of the TPC time of the kernels fitted, each on the best of its widths within that. TPCs are taken GPC by GPC (lithosd's allocation), so that few TPCs lie in few GPCs.")
        result.end(o.out, failures)


main()
