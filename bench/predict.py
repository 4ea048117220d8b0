#!/usr/bin/env python3
"""How often lithosd is wrong about how long a kernel will take: models, eager and compiled, alone and beside another tenant.

Each model is a tenant of its own. All are loaded, and compiled, at the same time, on a few TPCs each; then one after the other
gets its part of the card and is measured: every batch size is run five times (training: five steps), then iterations of random batch
sizes are counted, first with the rest of the card idle, then, again after five of each, with a neighbour that trains beside it. A
kernel's prediction and duration are those of the trace; a launch is mispredicted when they differ by more than 50 us. With --traces
each case leaves a trace, from what it learns by on, the neighbour's kernels with it: bench/predict_replay.py --traces asks it more."""
import concurrent.futures
import contextlib
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, trace  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

OFF_NS = 50000
LEARN = 5  # iterations of each batch size that are not counted
# Iterations of a length that leaves time for all batch sizes.
SHORTER = {"llama prefill": ["--seq", "256"], "llama decode": ["--tokens", "4"]}
METHODS = ("ordinal", "shape", "context", "path")
LIMITS = {"inference": 0.5, "training": 5}


class Neighbour:
    """A tenant that trains while it is let, a second at a time, and is loaded once."""

    def __init__(self, bench, d):
        self.model = models.under_lithos(bench.o, d, bench.o.neighbour_quota, "neighbour", bench.o.neighbour, bench.scratch)
        self.failure = None

    def work(self, enough):
        try:
            while not enough.is_set():
                self.model.do("seconds 1")
        except Failed as e:
            self.failure = e

    @contextlib.contextmanager
    def at_work(self):
        enough = threading.Event()
        thread = threading.Thread(target=self.work, args=(enough,))
        thread.start()
        try:
            time.sleep(1)
            yield
        finally:
            enough.set()
            thread.join()
        if self.failure:
            raise Failed(f"the neighbour: {self.failure}")

    def kill(self):
        self.model.kill()


class Bench:
    def __init__(self, o, place, scratch, result):
        self.o, self.place, self.scratch, self.result = o, place, scratch, result
        self.runs = 0

    def count(self, d, model):
        """Figures of one repetition of a phase."""
        self.runs += 1
        path = self.scratch.path / f"{self.runs}.trace"
        before = prediction(d, model.tenant)
        with d.record(path, model.tenant):
            ran = model.do(f"seconds {self.o.seconds * self.o.scale:g}", 60 + 4 * self.o.seconds * self.o.scale)
            models.settle()
        after = prediction(d, model.tenant)
        kernels, drops = trace.load(path)
        path.unlink()
        if not kernels:
            raise Failed(f"no kernel is in the trace; missing: {drops}")
        return {"iterations": ran["iterations"], "iteration_p50_us": ran.get("p50_us"), **score(kernels),
                **by_method(before, after), **{f"dropped_{k}": n for k, n in drops.items()}}

    def phase(self, d, model, case):
        """Learn once, then count in each repetition."""
        with self.kept(d, case):
            model.do(f"each {LEARN}", self.o.model_timeout)
            models.settle()
            for rep in range(1, self.o.repetitions + 1):
                told(self.result, case, rep, self.count(d, model))

    @contextlib.contextmanager
    def kept(self, d, case):
        """With --traces: everybody's kernels meanwhile are in OUT/predict-traces afterwards, for others to look at."""
        if not self.o.traces:
            yield
            return
        raw = self.scratch.path / "kept.trace"
        with d.record(raw):
            yield
        folder = pathlib.Path(self.o.out) / "predict-traces"
        folder.mkdir(parents=True, exist_ok=True)
        packed, blocks, of = trace.pack(raw.read_bytes(), self.o.bytes, 6)
        raw.unlink()
        (folder / (case.replace(", ", "-").replace(" ", "-") + ".trace")).write_bytes(packed)
        log(f"{case}: kept {blocks} of {of} blocks of its trace")


def prediction(d, tenant):
    observed = d.tenant(tenant).get("observed") or {}
    return observed.get("prediction") or {}


def score(kernels):
    """What the trace says of the predictions."""
    off = [abs(k["predicted"] - (k["end"] - k["start"])) for k in kernels]
    alone = [n for n, k in zip(off, kernels) if not k["flags"] & trace.ESTIMATE]
    missed, took = sum(n > OFF_NS for n in off), sum(k["end"] - k["start"] for k in kernels)
    return {"launches": len(kernels), "mispredicted": missed, "mispredicted_percent": results.percent(missed, len(off)),
            "p50_error_us": results.quantile(off, 0.5) / 1e3, "p99_error_us": results.quantile(off, 0.99) / 1e3,
            "unpredicted": sum(not k["predicted"] for k in kernels),
            "error_of_kernel_time_percent": results.percent(sum(off), took),
            "estimate_percent": results.percent(len(off) - len(alone), len(off)),
            "not_estimates_mispredicted_percent": results.percent(sum(n > OFF_NS for n in alone), len(alone)),
            "kernels_over_50_us": sum(k["end"] - k["start"] > OFF_NS for k in kernels)}


def by_method(before, after):
    """What lithosd's own counters of the same time say: each method alone, and the one that was chosen."""
    def percent(path):
        a, b = before, after
        for key in path:
            a, b = (a or {}).get(key), (b or {}).get(key)
        if not b:
            return None
        a = a or {"launches": 0, "mispredicted": 0}
        return results.percent(b["mispredicted"] - a["mispredicted"], b["launches"] - a["launches"])
    out = {f"{m}_mispredicted_percent": percent(("methods", m)) for m in METHODS}
    out["daemon_mispredicted_percent"] = percent(())
    sources = (after.get("sources") or {}).items()
    out.update({f"answered_by_{s}": n["launches"] - ((before.get("sources") or {}).get(s) or {"launches": 0})["launches"]
                for s, n in sources})
    return {k: v for k, v in out.items() if v is not None}


def variants(names, o):
    """(case, model's name, its arguments)."""
    for name in names:
        extra = [] if models.is_training(name) else ["--batch", models.MORE_BATCHES, *SHORTER.get(name, [])]
        for word in o.modes.split(","):
            compiled = word == "compiled"
            # decoding and the toy know no compiler, and the compiled Llama's training finds no room beside the others
            if not compiled or not (name.startswith("toy") or name in ("llama decode", "llama training")):
                yield f"{name}, {word}", name, extra + (["--compile"] if compiled else [])


def load(bench, d, n, name, extra):
    """A model that has been launched, and compiled, on a few TPCs: what is launched first is learned from like everything else. It is told of
    all SMs, or its libraries would size their kernels by those few for good."""
    model = models.under_lithos(bench.o, d, bench.o.waiting_quota, f"m{n}", name, bench.scratch, "--warmup", "0", *extra,
                                options=["--sm-count", "full"])
    try:
        model.do(f"run {1 if models.is_training(name) else 3}", bench.o.model_timeout)
    except BaseException:
        model.kill()
        raise
    return model


def measure(bench, d, case, model, neighbour):
    d.set_quota(model.tenant, bench.o.quota)
    bench.phase(d, model, f"{case}, alone")
    if neighbour:
        with neighbour.at_work():
            bench.phase(d, model, f"{case}, beside")


def measure_all(bench, d, names, out_of_time):
    """Number of cases that failed."""
    failures = 0
    neighbour = Neighbour(bench, d) if bench.o.neighbour_quota != "0" else None
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        loading = [(case, pool.submit(load, bench, d, n, name, extra)) for n, (case, name, extra) in
                   enumerate(variants(names, bench.o))]
        concurrent.futures.wait([future for _, future in loading])
    log(f"{len(loading)} models are loaded")
    try:
        for case, future in loading:
            try:
                with future.result() as model:
                    if out_of_time():
                        bench.result.note(f"{case}: not run, time ran out.")
                        continue
                    measure(bench, d, case, model, neighbour)
            except (Failed, OSError, ValueError, KeyError) as e:
                failures += 1
                bench.result.case(case, 0, error=str(e)[:1000])
                bench.result.note(f"{case}: failed.")
                log(f"{case}: FAILED: {e}")
    finally:
        if neighbour:
            neighbour.kill()
    return failures


def told(result, case, rep, figures):
    got = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    result.case(case, rep, **got)
    log(f"[{rep}] {case}:", ", ".join(f"{k} {v}" for k, v in got.items()))


def bars(result):
    for kind, limit in LIMITS.items():
        def mine(c, kind=kind):
            return "launches" in c and models.is_training(c["case"].split(",")[0]) == (kind == "training")
        values, means = [], []
        for rep in sorted({c["rep"] for c in result.doc["cases"]}):
            cases = [c for c in result.doc["cases"] if c["rep"] == rep and mine(c)]
            if cases:
                values.append(results.percent(sum(c["mispredicted"] for c in cases), sum(c["launches"] for c in cases)))
                means.append(sum(c["mispredicted_percent"] for c in cases) / len(cases))
        result.bar(f"{kind} mispredicted %", results.median(values) if values else None, "<=", limit)
        if values:
            result.note(f"{kind}: of all launches {results.median(values):.3f} %; the mean of the cases, each as heavy as another, "
                        f"is {results.median(means):.3f} %.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p)
    p.add_argument("--seconds", type=float, default=1.5, help="counted of each case and repetition (default: %(default)s)")
    p.add_argument("--modes", default="eager,compiled", help="(default: %(default)s)")
    p.add_argument("--quota", default="24", help="TPCs of the model that is measured (default: %(default)s)")
    p.add_argument("--waiting-quota", default="2", help="of those that are not yet (default: %(default)s)")
    p.add_argument("--neighbour", help="the model beside it (default: resnet50 training; with --virtual: toy inference)")
    p.add_argument("--neighbour-quota", default="18", help="0: none, alone only (default: %(default)s)")
    p.add_argument("--traces", action="store_true", help="keep a trace of each case in OUT/predict-traces")
    p.add_argument("--bytes", type=int, default=4000000, help="of such a trace at most (default: %(default)s)")
    o, place = cli.start(p)
    o.neighbour = o.neighbour or ("toy inference" if virtual() else "resnet50 training")
    if o.neighbour not in models.MODELS:
        p.error(f"--neighbour: there are {', '.join(models.MODELS)}")
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        result = results.Result("predict", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        bench = Bench(o, place, scratch, result)
        names = models.choose(o, result)

        def out_of_time():
            return o.keep_going_after and time.monotonic() - begun > o.keep_going_after
        try:
            with servers.Lithosd(place, scratch) as d:
                failures += measure_all(bench, d, names, out_of_time)
        except Failed as e:
            failures += 1
            result.case("all", 0, error=str(e)[:1000])
            log(f"FAILED: {e}")
        except SystemExit:  # a signal: what was measured is kept
            failures += 1
            result.note("Ended before its end, by a signal.")
        result.note(f"{o.quota} TPCs in all cases, \"beside\" with {o.neighbour} on another {o.neighbour_quota}. The first "
                    f"{LEARN} iterations of each batch size are not counted, and again so when the neighbour has come. Inference: "
                    f"batches of {models.MORE_BATCHES} at random.")
        result.note("Figures by method are lithosd's own for the same time; a method without an answer counts as having said 0.")
        bars(result)
        result.end(o.out, failures)


main()
