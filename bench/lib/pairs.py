"""A service and a burner over the same window: what is measured of ways to keep the two apart."""
import signal
import time

from lib import servers
from lib.proc import Child, Failed, log

START_S = 60  # for a tenant to be ready


class Pairs:
    """o: seconds, warmup, scale."""

    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.common = ["--json", "--gate", "--warmup", str(o.warmup), "--time-scale", f"{o.scale:g}"]
        self.timeout = (o.seconds + o.warmup) * o.scale + 60
        self.runs = 0

    def hp(self):
        """A request of one kernel (98 us on an H200) every 2 ms."""
        return [self.place.program("lithos-serve"), "--period-us", "2000", "--seconds", str(self.o.seconds), *self.common]

    def burner(self, *options):
        """Kernels back to back, until SIGTERM: it must not end before the service does."""
        return [self.place.program("lithos-burn"), *options, "--seconds", "0", *self.common]

    def errors(self, who):
        self.runs += 1
        return self.scratch.path / f"{self.runs}-{who}.err"

    def pair(self, hp=None, be=None, hp_env=None, be_env=None, before=None, after=None):
        """Runs the service, the burner, or both over the same window; before(): called when they are ready, before it; after(): at its end,
        while the burner is still at work. (service's figures, burner's figures)"""
        children = []
        try:
            # the burner first: the service must find it at work
            burner = service = None
            if be:
                burner = Child(be, be_env or servers.clean_env(), self.errors("be"))
                children.append(burner)
                burner.expect("ready", START_S * max(1, self.o.scale / 4))
            if hp:
                service = Child(hp, hp_env or servers.clean_env(), self.errors("hp"))
                children.append(service)
                service.expect("ready", START_S * max(1, self.o.scale / 4))
            if before:
                before()
            for c in children:
                c.tell("")
            served = burned = None
            if service:
                served = service.result(self.timeout)
            else:
                time.sleep(self.o.seconds * self.o.scale)
            if after:
                after()
            if burner:
                burner.signal(signal.SIGTERM)
                burned = burner.result(self.timeout)
            return served, burned
        finally:
            for c in children:
                c.kill()


def figures(served, burned):
    out = {}
    if served:
        out.update({k: served[k] for k in ("requests", "unserved", "rate_per_s", "p50_us", "p99_us", "p999_us", "max_us")})
    if burned:
        out.update(be_kernels=burned["kernels"], be_kernels_per_s=burned["kernels_per_s"])
    return out


class Table:
    """Cases as they are run, each by itself: what fails is noted, and the others go on. wants: which, by name."""

    def __init__(self, result, wants=lambda name: True):
        self.result, self.wants, self.failures = result, wants, 0

    def case(self, name, rep, run):
        if not self.wants(name):
            return
        try:
            got = run()
            self.result.case(name, rep, **got)
            log(f"[{rep}] {name}:", ", ".join(f"{k} {v:g}" for k, v in got.items() if isinstance(v, (int, float))))
        except Failed as e:
            self.failures += 1
            self.result.case(name, rep, error=str(e)[:1000])
            self.result.note(f"{name}: failed in repetition {rep}.")
            log(f"[{rep}] {name}: FAILED: {e}")
