"""Models beside each other on one card, by what keeps them apart: the ways, and a window in which all of them work."""
import contextlib
import threading

from lib import models, results, servers
from lib.proc import Failed

ALONE = "alone"
# In the order in which a repetition runs them.
BASELINES = ("time slicing", "mps", "client priority", "partition")
LITHOS = "lithos"
WAYS = BASELINES + (LITHOS,)
NO_PREEMPT = ("preempt: not run, as time slices of channel groups cannot be set from lithosd yet (`lithosd --policy help`).")


class Job:
    """One program. high: of high priority. model: a name of lib/models.py; extra: more for run.py. rate: Poisson requests a second
    of the card's time, 0: one after the other. slo_ms: of a request. quota: its TPCs under partition and under LithOS, "0": none.
    options: of `lithos run`, under LithOS."""

    def __init__(self, label, model, quota, high=True, extra=(), rate=0, slo_ms=0, options=()):
        self.label, self.model, self.quota, self.high, self.extra = label, model, quota, high, list(extra)
        self.rate, self.slo_ms, self.options = rate, slo_ms, list(options)

    def lithos_options(self, scale):
        """As one would advise: class, SLO, atoms."""
        out = list(self.options)
        if not self.high:
            out += ["--class", "best-effort", "--atom", f"{250 * scale:g}us"]
        elif self.slo_ms:
            out += ["--slo", f"{self.slo_ms * scale:g}ms"]
        return out

    def advice(self):
        return f"{self.label}: --quota {self.quota} {' '.join(self.lithos_options(1))}".rstrip()


def add_options(p):
    p.add_argument("--seconds", type=float, default=20, help="measured seconds a case, in the card's time (default: %(default)s)")
    p.add_argument("--learn", type=int, default=10, help="iterations of each program before (default: %(default)s)")
    p.add_argument("--ways", default=",".join(WAYS), help="with commas between (default: %(default)s)")
    models.add_options(p)


def ways(o):
    out = [w.strip() for w in o.ways.split(",")]
    unknown = [w for w in out if w not in WAYS]
    if unknown:
        raise SystemExit(f"bench: --ways: there is no {', '.join(unknown)}; there are {', '.join(WAYS)}")
    return out


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch

    @contextlib.contextmanager
    def servers(self, way):
        """What the way needs: a function that starts a job."""
        o, scratch = self.o, self.scratch

        def bare(env):
            def start(job):
                more = {"CUDA_MPS_CLIENT_PRIORITY": "1"} if way == "client priority" and not job.high else {}
                return models.bare(o, dict(env, **more), job.label, job.model, scratch, *job.extra)
            return start

        def tenant(d):
            def start(job):
                options = job.lithos_options(o.scale) if way == LITHOS else []
                argv = d.run(job.quota, job.label, models.command(o, job.model, "--obey", *job.extra), options)
                return models.warm(models.Model(o, argv, models.environment(d.env, scratch), scratch.path / f"{job.label}.err",
                                                job.label))
            return start

        if way in (ALONE, "time slicing"):
            yield bare(servers.clean_env())
        elif way in ("mps", "client priority"):
            with servers.Mps(scratch) as mps:
                yield bare(mps.env)
        else:
            with servers.Lithosd(self.place, scratch, args=["--policy", "partition"] if way == "partition" else []) as d:
                self.lithosd = d
                yield tenant(d)

    def work(self, job, model, out):
        seconds = self.o.seconds * self.o.scale
        command = f"serve {job.rate / self.o.scale:g} {seconds:g}" if job.rate else f"seconds {seconds:g}"
        try:
            out[job.label] = model.do(command, 120 + 10 * seconds)
        except Failed as e:
            out[job.label] = e

    def figures(self, job, ran):
        """In the card's time."""
        us = [u / self.o.scale for u in ran["us"]]
        if not us:
            raise Failed(f"{job.label}: no iteration in {ran['seconds']:.1f} s")
        late = sum(u > job.slo_ms * 1e3 for u in us) if job.slo_ms else 0
        out = {"iterations": len(us), "iterations_per_s": len(us) / ran["seconds"] * self.o.scale,
               "p50_us": results.quantile(us, 0.5), "p99_us": results.quantile(us, 0.99)}
        if job.slo_ms:
            out["slo_percent"] = results.percent(len(us) - late, len(us))
        return out

    def run(self, way, jobs):
        """All jobs over one window: their figures, by label."""
        out, started = {}, []
        with self.servers(way) as start:
            try:
                for job in jobs:
                    started.append((job, start(job)))
                for job, model in started:  # they know each other's shapes by now; lithosd has learned the kernels
                    model.do(f"run {self.o.learn}", self.o.model_timeout)
                threads = [threading.Thread(target=self.work, args=(job, model, out)) for job, model in started]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
            finally:
                for _, model in started:
                    model.kill()
        for label, ran in out.items():
            if isinstance(ran, Failed):
                raise Failed(f"{label}: {ran}")
        return {job.label: self.figures(job, out[job.label]) for job in jobs}

    def alone(self, job):
        return self.run(ALONE, [job])[job.label]


def flat(by_label):
    return {f"{label}_{key}": value for label, figures in by_label.items() for key, value in figures.items()}
