#!/usr/bin/env python3
"""Is every launch accounted for? Tenants launch as fast as they can from several streams and are killed at random, lithosd is halted
now and then; what they counted themselves is held against what lithosd knows.

Each tenant runs lithos-flood again and again, most of the times to its end, sometimes until SIGKILL. lithos-flood counts its launches
in a file that it maps, before and after each, which survives it. For each tenant lithosd must know as many kernels as were
launched: stamped, or with the reason why not, or dropped because the ring of records was full. Only what was on its way at a kill,
one launch a stream at most, may be on either side. The trace that was recorded meanwhile must tell every stamped kernel once, in order."""
import json
import os
import pathlib
import random
import signal
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers, trace  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

KEEPER = 'while read -r words; do "$0" $words; echo "ended $?"; done'
RECORDS_LOST = ("record_ring", "overrun", "damaged")  # of "lost" in the status document: the others are of launches recorded
MARKS = 64  # of lithos-flood: launch n of a stream has n modulo this of shared memory
RINGS = 16  # of an arena
LINE = 64  # bytes of a line of its file
POLL_S = 0.002


class Counts:
    """What one lithos-flood counted, whatever became of it."""

    def __init__(self, path):
        data = path.read_bytes() if path.exists() else b""
        self.pid = self.streams = 0
        self.begun = self.ended = self.in_flight_most = 0
        if len(data) < LINE:
            return
        self.pid, self.streams = struct.unpack_from("<QQ", data)
        for i in range(self.streams):
            begun, ended = struct.unpack_from("<QQ", data, LINE * (1 + i))
            self.begun, self.ended = self.begun + begun, self.ended + ended
            self.in_flight_most = max(self.in_flight_most, begun - ended)


class Tenant:
    """One after the other, processes that launch; some do not live to their end."""

    def __init__(self, bench, d, name, seed):
        self.bench, self.name, self.random = bench, name, random.Random(seed)
        self.flood = bench.place.program("lithos-flood")
        # inline, so that what it counts as launched is what the card was given when it is killed
        self.child = Child(d.run(bench.quota, name, ["sh", "-c", KEEPER, self.flood], ["--hand-over", "off"]), d.env, bench.scratch.path / f"{name}.err")
        self.lives = self.kills = self.begun = self.ended = self.in_flight_most = 0
        self.path = self.kill_at = self.pidfd = None

    def begin_life(self):
        o = self.bench.o
        left = max(0, o.launches // o.tenants - self.ended)
        # now and then more threads than there are rings for: what they launch is dropped, and counted
        streams = o.streams if self.random.random() < 0.8 else RINGS + o.streams
        most = max(1, left // streams)
        size = min(most, self.random.randrange(o.life // 4, o.life * 2))
        last = size == most
        self.lives += 1
        self.path = self.bench.scratch.path / f"{self.name}.{self.lives}.count"
        self.started, self.size, self.kill_at, self.kill_after_s, self.killed = time.monotonic(), size * streams, None, None, False
        if not last and self.random.random() < o.kill_share:
            if self.random.random() < 0.15:  # maybe before it has launched anything, or attached
                self.kill_after_s = self.random.random() * 0.05
            else:
                self.kill_at = self.random.randrange(self.size)
        self.child.tell(f"--streams {streams} --launches {size} --count {self.path}")

    def step(self):
        """True while there is more to do."""
        if self.path is None:
            if self.ended >= self.bench.o.launches // self.bench.o.tenants:
                return False
            self.begin_life()
            return True
        counts = Counts(self.path)
        if counts.pid and not self.pidfd:
            try:
                self.pidfd = os.pidfd_open(counts.pid)
            except ProcessLookupError:
                pass  # it has ended
        due = (self.kill_at is not None and counts.begun >= self.kill_at or
               self.kill_after_s is not None and time.monotonic() - self.started >= self.kill_after_s)
        if due and self.pidfd and not self.killed:
            self.killed = True
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.maybe_ended()
        return True

    def maybe_ended(self):
        line = self.child.line_if_any()
        if line is not None and line.startswith("{"):  # lithos-flood's own figures
            line = self.child.line_if_any()
        if line is None:
            if time.monotonic() - self.started > self.bench.o.life_timeout:
                raise Failed(f"{self.name}: a life of {self.size} launches did not end in {self.bench.o.life_timeout:g} s. {self.child.why()}")
            return
        code = int(line.split()[1])
        if code != 0 and not (self.killed and code == 128 + signal.SIGKILL):
            raise Failed(f"{self.name}: lithos-flood ended with {code}. {self.child.why()}")
        counts = Counts(self.path)
        self.kills += code != 0
        self.begun, self.ended = self.begun + counts.begun, self.ended + counts.ended
        self.in_flight_most = max(self.in_flight_most, counts.in_flight_most)
        self.path.unlink(missing_ok=True)
        if self.pidfd:
            os.close(self.pidfd)
        self.path = self.pidfd = None


class Staller:
    """Halts lithosd for a moment now and then, so that rings fill and stamps are overwritten unread."""

    def __init__(self, bench, pid):
        self.o, self.pid, self.random = bench.o, pid, random.Random(bench.o.seed)
        self.stalls, self.until, self.due = 0, None, time.monotonic() + self.o.stall_every if self.o.stall_every else None

    def step(self):
        now = time.monotonic()
        if self.until and now >= self.until:
            os.kill(self.pid, signal.SIGCONT)
            self.until, self.due = None, now + self.o.stall_every * (0.5 + self.random.random())
        elif self.due and not self.until and now >= self.due:
            os.kill(self.pid, signal.SIGSTOP)
            self.stalls += 1
            self.until = now + self.random.uniform(0.02, 0.6)  # a process that cannot attach for 1 s goes on without

    def end(self):
        if self.until:
            os.kill(self.pid, signal.SIGCONT)


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.quota = max(1, 66 // o.tenants) if virtual() else f"{100 // o.tenants}%"

    def run(self, rep):
        """{tenant: figures}, and how often lithosd was halted."""
        with servers.Lithosd(self.place, self.scratch, f"d{rep}") as d:
            path = self.scratch.path / f"{rep}.trace"
            tenants = []
            try:
                with d.record(path):
                    tenants = [Tenant(self, d, f"t{i + 1}", f"{self.o.seed} {rep} {i}") for i in range(self.o.tenants)]
                    stalls = self.until_done(tenants, d)
                    status = self.settled(d)
                kernels, drops = trace.load(path)
            finally:
                for t in tenants:
                    t.child.kill()
                path.unlink(missing_ok=True)
        told = told_by_tenant(kernels)
        out = {t.name: account(t, status[t.name], told.get(status[t.name]["id"], [])) for t in tenants}
        traced = sum(figures["traced"] for figures in out.values())
        if traced != len(kernels):
            raise Failed(f"{len(kernels)} kernels in the trace, {traced} of them of a tenant")
        return out, stalls, drops

    def until_done(self, tenants, d):
        staller = Staller(self, d.child.popen.pid)
        busy = list(tenants)
        try:
            while busy:
                busy = [t for t in busy if t.step()]
                staller.step()
                time.sleep(POLL_S)
        finally:
            staller.end()
        return staller.stalls

    def settled(self, d):
        """What lithosd says of the tenants once it has seen all their processes end."""
        deadline = time.monotonic() + 30
        while True:
            status = {t["name"]: t for t in d.status()["tenants"]}
            if not any(p["attached"] for t in status.values() for p in t["pids"]):
                return status
            if time.monotonic() > deadline:
                raise Failed("lithosd does not see that processes have ended")
            time.sleep(0.05)


def told_by_tenant(kernels):
    out = {}
    for k in kernels:
        out.setdefault(f"{k['tenant']:x}", []).append(k)
    return out


def disorder(kernels):
    """(kernels told twice, steps from one kernel of a stream to the next that leave kernels out): in order of their sequence."""
    seen, last, twice, gaps = set(), {}, 0, 0
    for k in kernels:
        key = (k["pid"], k["sequence"])
        twice += key in seen
        seen.add(key)
        stream = (k["pid"], k["stream"])
        due = (last[stream] + 1) % MARKS if stream in last else 0
        gaps += k["shared"] != due
        last[stream] = k["shared"]
    return twice, gaps


def account(tenant, status, told):
    """One tenant: what it counted, what lithosd knows, and what does not add up."""
    o, c = status["observed"], status["counters"]
    lost = {why: n for why, n in o["lost"].items() if why not in RECORDS_LOST}
    known = o["kernels"] + sum(lost.values()) + o["queue"] + c["launches_dropped"]
    read = sum(o["records"].values())
    stamped = o["launches"] - sum(lost[why] for why in ("no_slot", "semaphore_taken", "stamps_off"))
    twice, gaps = disorder(told)
    in_flight = tenant.begun - tenant.ended
    missing = o["lost"]["missing"] + sum(lost.values()) + c["launches_dropped"] + in_flight
    return {
        "lives": tenant.lives, "kills": tenant.kills, "begun": tenant.begun, "ended": tenant.ended, "in_flight": in_flight,
        "in_flight_a_stream": tenant.in_flight_most, "stamped": o["kernels"], "record_ring": c["launches_dropped"], **lost,
        "in_flight_known": known - tenant.ended, "traced": len(told),
        # from here on all are to be 0
        "unaccounted": max(0, tenant.ended - known), "invented": max(0, known - tenant.begun),
        "queue": o["queue"], "recorded_and_not_known": abs(o["records"]["launch"] - o["launches"]),
        # a kill may lie between a record and the count of it
        "records_off": max(0, c["records"] - read) + max(0, read - c["records"] - in_flight) + o["lost"]["overrun"] + o["lost"]["damaged"],
        "stamps_off_by": max(0, stamped - c["stamps"]) + max(0, c["stamps"] - stamped - c["launches_dropped"] - in_flight),
        "hook_off": max(0, tenant.ended - c["launches"]) + max(0, c["launches"] - c["qmds"]) + max(0, c["qmds"] - tenant.begun),
        "traced_and_not_stamped": abs(len(told) - o["kernels"]), "traced_twice": twice,
        "gaps": gaps if not missing else max(0, gaps - missing),
    }


ZERO = {"unaccounted": "launches not accounted for", "invented": "launches accounted for that were not made",
        "queue": "kernels of dead processes still in the queue", "recorded_and_not_known": "records of launches without a kernel",
        "records_off": "records written and not read", "stamps_off_by": "stamps that belong to no launch", "hook_off": "launches the hooks miscounted",
        "traced_and_not_stamped": "stamped kernels missing in the trace", "traced_twice": "kernels told twice in the trace",
        "gaps": "gaps in a stream's kernels that nothing explains"}


def bars(result, o):
    cases = [c for c in result.doc["cases"] if "begun" in c]
    complete = len({c["rep"] for c in cases}) == o.repetitions

    def worst(key, of=max):
        sums = {}
        for c in cases:
            sums[c["rep"]] = sums.get(c["rep"], 0) + c[key]
        return of(sums.values()) if complete else None

    result.bar("launches a repetition", worst("ended", min), ">=", o.launches)
    result.bar("processes killed, all repetitions", sum(c["kills"] for c in cases), ">=", 1)
    result.bar("launches on their way at a kill, a stream", max((c["in_flight_a_stream"] for c in cases), default=None), "<=", 1)
    for key, words in ZERO.items():
        result.bar(words, worst(key), "==", 0)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--launches", type=int, default=1000000, help="of all tenants together, a repetition (default: %(default)s)")
    p.add_argument("--tenants", type=int, default=8)
    p.add_argument("--streams", type=int, default=4, help="of each process, a thread each")
    p.add_argument("--life", type=int, default=600, help="launches a stream of a process, about (default: %(default)s)")
    p.add_argument("--kill-share", type=float, default=0.4, help="processes that are killed (default: %(default)s)")
    p.add_argument("--stall-every", type=float, default=0.8, metavar="S", help="halt lithosd about so often (default: %(default)s; 0: never)")
    p.add_argument("--life-timeout", type=float, default=60, metavar="S", help="for a process to end")
    p.add_argument("--seed", type=int, default=1)
    p.set_defaults(scale=1)
    o, place = cli.start(p)
    failures = 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("nothing-lost", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        for rep in range(1, o.repetitions + 1):
            begun = time.monotonic()
            try:
                got, stalls, drops = bench.run(rep)
            except Failed as e:
                failures += 1
                result.case("all", rep, error=str(e)[:1000])
                log(f"[{rep}/{o.repetitions}] FAILED: {e}")
                continue
            for name, figures in got.items():
                result.case(name, rep, **figures)
            sums = {k: sum(f[k] for f in got.values()) for k in next(iter(got.values())) if k not in (*ZERO, "in_flight_a_stream")}
            result.case("lithosd", rep, halted=stalls, **{f"trace_{why}": n for why, n in drops.items()})
            log(f"[{rep}/{o.repetitions}] {time.monotonic() - begun:.0f} s, lithosd halted {stalls} times:", json.dumps(sums))
        result.note("in_flight: begun and not ended when a process was killed; in_flight_known: how many of them lithosd knows. Every "
                    "other launch is stamped or under its reason (names as in docs/status.md; record_ring: the ring was full).")
        if o.virtual:
            result.note(f"Virtual {o.card}, at the card's speed times {1 / o.scale:g}.")
        bars(result, o)
        result.end(o.out, failures)


main()
