"""Models beside each other on one card, by what keeps them apart: the ways, and windows in which some of them work.

Frameworks take longer to start than a window takes, so the programs of a way start side by side, once, and stay: a window has those work that
it is of, while the others wait for a command (they hold memory, and under LithOS their quota, which a window can take from them)."""
import concurrent.futures
import contextlib
import json
import pathlib
import subprocess
import time

from lib import host, models, results, servers
from lib.proc import Child, Failed, log

ALONE = "alone"
PREEMPT = "preempt"
BASELINES = ("time slicing", "mps", "client priority", PREEMPT, "partition")
LITHOS = "lithos"
GATHERED = "gathered turns"  # preempt, with the options that we would advise for it
LONG_TURNS = "long turns"  # and turns of class high that are long enough for a request
TURN_US = 20000
WAYS = BASELINES + (LITHOS,)
MORE_WAYS = (GATHERED, LONG_TURNS)  # where --ways says so
START_S = 10  # for lithos-awake
QUIET_S = 10


class Job:
    """One program. high: of high priority. model: a name of lib/models.py; extra: more for run.py. rate: Poisson requests a second
    of the card's time, 0: one after the other. slo_ms: of a request. quota: its TPCs under partition and under LithOS, "0": none.
    options: of `lithos run`, under LithOS; turns: the same under `lithosd --share preempt` in MORE_WAYS."""

    def __init__(self, label, model, quota, high=True, extra=(), rate=0, slo_ms=0, options=(), turns=()):
        self.label, self.model, self.quota, self.high, self.extra = label, model, quota, high, list(extra)
        self.rate, self.slo_ms, self.options, self.turns = rate, slo_ms, list(options), list(turns)

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
    p.add_argument("--seconds", type=float, default=4, help="measured seconds a window, in the card's time (default: %(default)s)")
    p.add_argument("--learn", type=int, default=10, help="iterations of each program before the first (default: %(default)s)")
    p.add_argument("--settle", type=float, default=0.5, help="seconds that a window's programs work before it (default: %(default)s)")
    p.add_argument("--together", action="store_true", help="the programs of all ways at once, where the card has memory for them: the ways "
                   "take turns in each repetition, so that all meet the same host")
    p.add_argument("--in-turn", action="store_true", help="with --together: those alone and LithOS' are there all the time, those of the other ways one "
                   "way after the other, each for all repetitions by turns with these: for more ways than the card has memory for")
    p.add_argument("--awake", action="store_true", help="keep the machine's processors from sleeping meanwhile (lithos-awake): in a virtual machine "
                   "a program that has slept may be slower for it, whoever is beside it")
    p.add_argument("--record", action="store_true", help="a trace of each case's last window under LithOS, in OUT")
    p.add_argument("--ways", default=",".join(WAYS), help="with commas between (default: %(default)s)")
    models.add_options(p)


def chosen_ways(o):
    out = [w.strip() for w in o.ways.split(",")]
    known = WAYS + MORE_WAYS
    unknown = [w for w in out if w not in known]
    if unknown:
        raise SystemExit(f"bench: --ways: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return out


@contextlib.contextmanager
def awake(place):
    """Meanwhile no processor sleeps."""
    with Child([place.program("lithos-awake")]) as child:
        child.expect("ready", START_S)
        yield


def quiet_host(o, place):
    """What the host's processors are like, as a note; ends the program where they are of one speed less often than --quiet-host says. None: it does not."""
    if o.quiet_host is None:
        return None
    with awake(place) if o.awake else contextlib.nullcontext():
        fast_ms, slow = host.measure(QUIET_S)
    said = f"The host, for {QUIET_S} s before: a plain loop takes {fast_ms:.2f} ms, and {host.SLOW} times that or more in {100 * slow:.1f} % of its runs."
    if slow > o.quiet_host:
        raise SystemExit(f"bench: --quiet-host {o.quiet_host:g}: {said}")
    log(said)
    return said


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.begin = time.monotonic()
        self.started = 0  # servers, each with a folder of its own: several may live at a time

    @contextlib.contextmanager
    def awake(self, result):
        """Meanwhile no processor sleeps, with --awake."""
        if not self.o.awake:
            yield
            return
        with awake(self.place):
            result.note("No processor sleeps meanwhile (--awake).")
            yield

    def is_late(self, way):
        """--keep-going-after: nothing more is begun."""
        late = self.o.keep_going_after and time.monotonic() - self.begin > self.o.keep_going_after
        if late:
            log(f"{way}: not run, --keep-going-after")
        return late

    def stages(self):
        """The ways, one after the other: alone, in which time slicing is measured too, LithOS, the others; until --keep-going-after."""
        chosen = chosen_ways(self.o)
        for way in [ALONE] + [w for w in (LITHOS, *MORE_WAYS, *BASELINES) if w in chosen and w != "time slicing"]:
            if not self.is_late(way):
                log(f"{way}: starting")
                yield way

    @contextlib.contextmanager
    def servers(self, way):
        """What the way needs: (lithosd that has quotas, or None; a function that starts a job)."""
        o, scratch = self.o, self.scratch
        self.started += 1
        name = f"s{self.started}"

        def bare(env):
            def start(job):
                more = {"CUDA_MPS_CLIENT_PRIORITY": "1"} if way == "client priority" and not job.high else {}
                return models.bare(o, dict(env, **more), job.label, job.model, scratch, *job.extra)
            return start

        def tenant(d):
            def start(job):
                # who waits with a TPC and gets more later would size its kernels by that one for good
                options = job.lithos_options(o.scale) if way == LITHOS else [] if job.high else ["--sm-count", "full"]
                argv = d.run(job.quota, job.label, models.command(o, job.model, "--obey", *job.extra), options)
                return models.warm(models.Model(o, argv, models.environment(d.env, scratch), scratch.path / f"{job.label}.err",
                                                job.label))
            return start

        def in_turns(d):
            def start(job):
                # all have all TPCs: a quota only lets them in
                options = ["--class", "best-effort"] if not job.high else [] if way == PREEMPT else job.turns
                argv = d.run("1", job.label, models.command(o, job.model, "--obey", *job.extra), options)
                model = models.warm(models.Model(o, argv, models.environment(d.env, scratch), scratch.path / f"{job.label}.err"))
                try:
                    if not job.high:
                        d.wait_for_slices(job.label)
                except BaseException:
                    model.kill()
                    raise
                return model
            return start

        if way in (ALONE, "time slicing"):
            yield None, bare(servers.clean_env())
        elif way in ("mps", "client priority"):
            with servers.Mps(scratch, name) as mps:
                yield None, bare(mps.env)
        elif way in (PREEMPT, *MORE_WAYS):
            turn = ["--turn", str(TURN_US)] if way == LONG_TURNS else []
            with servers.Lithosd(self.place, scratch, name, args=["--share", "preempt", *turn]) as d:
                yield None, in_turns(d)
        else:
            with servers.Lithosd(self.place, scratch, name, args=["--policy", "partition"] if way == "partition" else ["--rightsize=on"]) as d:
                yield d, tenant(d)

    def explain(self, d, jobs):
        """Into OUT/explain.txt: what lithosd says of each at the end, of the last window's last second."""
        out = pathlib.Path(self.o.out)
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "explain.txt", "a", encoding="utf-8") as f:
            for job in jobs:
                run = subprocess.run([self.place.program("lithos"), "explain", job.label], env=d.env, stdin=subprocess.DEVNULL,
                                     capture_output=True, text=True, timeout=20)
                f.write(run.stdout + run.stderr + "\n")
            f.write(json.dumps(d.status(), indent=1) + "\n")

    @contextlib.contextmanager
    def stage(self, way, jobs):
        """All jobs' programs, started side by side and warm: a Stage."""
        with self.servers(way) as (d, start), concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            started = [(job, pool.submit(start, job)) for job in jobs]
            concurrent.futures.wait([f for _, f in started])
            running = {job.label: f.result() for job, f in started if not f.exception()}
            try:
                for _, f in started:
                    f.result()  # raises what went wrong
                stage = Stage(self.o, pool, d, jobs, running)
                stage.learn()
                yield stage
                if d and way == LITHOS:
                    self.explain(d, jobs)
            finally:
                for model in running.values():
                    model.kill()


class Stage:
    """Programs that wait for windows. lithosd: it, where there is one."""

    def __init__(self, o, pool, lithosd, jobs, running):
        self.o, self.pool, self.lithosd, self.running = o, pool, lithosd, running
        self.jobs = {job.label: job for job in jobs}

    def learn(self):
        """Each by itself: PyTorch has chosen its kernels by then, and lithosd has seen them."""
        for label in self.jobs:
            self.running[label].do(f"run {self.o.learn}", self.o.model_timeout)

    def work(self, labels, seconds):
        """They work side by side for so long, in the card's time: what each reports."""
        def command(job):
            s = seconds * self.o.scale
            return f"serve {job.rate / self.o.scale:g} {s:g}" if job.rate else f"seconds {s:g}"
        limit = 120 + 10 * seconds * self.o.scale
        futures = {label: self.pool.submit(self.running[label].do, command(self.jobs[label]), limit) for label in labels}
        concurrent.futures.wait(futures.values())
        return {label: f.result() for label, f in futures.items()}

    def window(self, *labels):
        """A window of these: figures by label, lithosd's own under that name where there is one. Raises Failed."""
        if self.o.settle:
            self.work(labels, self.o.settle)
        before = self.lithosd_so_far()
        with self.record(labels):
            ran = self.work(labels, self.o.seconds)
            told = {label: self.lithosd.explain(label) for label in labels} if self.lithosd else {}
        out = {label: self.figures(self.jobs[label], of_it) for label, of_it in ran.items()}
        if before:
            took, cpu, launches, lost = (now - then for now, then in zip(self.lithosd_so_far(), before))
            out["lithosd"] = {"cpu_percent": results.percent(cpu, took), "kernels_per_s": launches / took,
                              "lost_percent": results.percent(lost, launches) if launches else 0}
        for label, of_it in told.items():
            out[label].update(servers.as_owner(of_it) if self.jobs[label].high else servers.as_borrower(of_it))
        return out

    def record(self, labels):
        if not self.lithosd or not self.o.record:
            return contextlib.nullcontext()
        out = pathlib.Path(self.o.out)
        out.mkdir(parents=True, exist_ok=True)
        return self.lithosd.record(out / f"{'+'.join(labels)}.trace")

    def lithosd_so_far(self):
        """When, its processor time, kernels launched and those of them that it does not know the end of; None: no lithosd."""
        if not self.lithosd:
            return None
        seen = [t["observed"] for t in self.lithosd.status()["tenants"] if t.get("observed")]
        return (time.monotonic(), self.lithosd.cpu_s(), sum(o["launches"] for o in seen),
                sum(n for o in seen for why, n in o["lost"].items() if why not in ("record_ring", "overrun", "damaged")))

    def figures(self, job, ran):
        """In the card's time."""
        us = [u / self.o.scale for u in ran["us"]]
        if not us:
            raise Failed(f"{job.label}: no iteration in {ran['seconds']:.1f} s")
        late = sum(u > job.slo_ms * 1e3 for u in us) if job.slo_ms else 0
        out = {"iterations": len(us), "iterations_per_s": len(us) / ran["seconds"] * self.o.scale,
               **{f"p{q}_us": results.quantile(us, q / 100) for q in (10, 50, 99)}}
        if job.slo_ms:
            out["slo_percent"] = results.percent(len(us) - late, len(us))
        if ran.get("host_us"):
            out.update(self.of_the_host(job, ran))
        return out

    def of_the_host(self, job, ran):
        """How long until a request's launches are made, and what the SLO and the p99 would be if the card took no time for them: each request begins
        when it is due and the one before it has made its own."""
        host_us = [us / self.o.scale for us in ran["host_us"]]
        out = {f"host_p{q}_us": results.quantile(host_us, q / 100) for q in (10, 50, 99)}
        if job.slo_ms and job.rate:
            done_us, after_us, first_ns = 0, [], ran["start_ns"][0]
            for due_ns, us in zip(ran["start_ns"], host_us):
                due_us = (due_ns - first_ns) / 1e3 / self.o.scale
                done_us = max(done_us, due_us) + us
                after_us.append(done_us - due_us)
            late = sum(us > job.slo_ms * 1e3 for us in after_us)
            out["host_slo_percent"] = results.percent(len(host_us) - late, len(host_us))
            out["host_only_p99_us"] = results.quantile(after_us, 0.99)
        return out


def flat(by_label):
    return {f"{label}_{key}": value for label, figures in by_label.items() for key, value in figures.items()}


def measure(result, case, rep, window, rename=None):
    """A window as a case; rename: what its labels are called there. Number of failures."""
    log(f"{case}, {rep}")
    try:
        result.case(case, rep, **flat({(rename or {}).get(label, label): figures for label, figures in window().items()}))
        return 0
    except Failed as e:
        result.note(f"{case}, {rep}: {e}")
        return 1


def measure_ways(bench, result, ways, reps):
    """All windows, one way after the other or, with --together, by turns. A way: str(), way: its name; jobs(); parts(), the same of all: windows of one
    are close together in a turn; windows(result, stage, rep, names of the ways that are measured, part). Number of failures."""
    with bench.awake(result):
        return (together if bench.o.together else one_by_one)(bench, result, ways, reps)


def one_by_one(bench, result, ways, reps):
    failures = 0
    for way in ways:
        try:
            with bench.stage(way.way, way.jobs()) as stage:
                failures += sum(way.windows(result, stage, rep, chosen_ways(bench.o), part) for rep in reps for part in way.parts())
        except Failed as e:
            failures += 1
            result.note(f"{way}: {e}")
    return failures


def together(bench, result, ways, reps):
    """The programs of all ways at once, so that the ways take turns in each repetition: a host that is slower in one minute than in the next is so
    for all of them. A program that waits holds memory and nothing else."""
    ways = list(ways)
    stay = [way for way in ways if not bench.o.in_turn or way.way in (ALONE, LITHOS)]
    in_turn = [[way] for way in ways if way not in stay] or [[]]
    failures = 0
    try:
        with contextlib.ExitStack() as stack:
            stages = start_all(bench, stack, stay)
            for n, group in enumerate(in_turn):
                if n and bench.is_late(group[0]):
                    break
                failures += by_turns(bench, result, stages, group, reps, n)
    except Failed as e:
        failures += 1
        result.note(f"{'; '.join(map(str, stay))}: {e}")
    return failures


def start_all(bench, stack, ways):
    return [(way, stack.enter_context(bench.stage(way.way, way.jobs()))) for way in ways]


def by_turns(bench, result, stages, group, reps, n):
    """The n-th group of those that come in turn, beside stages of those that stay, whose repetitions are counted on. Time slicing is of these and
    measured once."""
    ways = [way for way in chosen_ways(bench.o) if not n or way != "time slicing"]
    failures = 0
    try:
        with contextlib.ExitStack() as stack:
            both = [(way, stage, n * len(reps)) for way, stage in stages]
            both += [(way, stage, 0) for way, stage in start_all(bench, stack, group)]
            for rep in reps:
                result.with_each = {"turn": n * len(reps) + rep}
                for part in both[0][0].parts():
                    for way, stage, before in both if rep % 2 else both[::-1]:
                        failures += way.windows(result, stage, before + rep, ways, part)
    except Failed as e:
        failures += 1
        result.note(f"{'; '.join(map(str, group))}: {e}")
    result.with_each = {}
    return failures
