"""Order: random programs of a best-effort tenant (tests/e2e/order/), whose calls wait in queues, leave in memory what they must; also while
lithosd dies and comes back, and its class changes; and a tenant that is killed with its queues full leaves nothing behind.

order.py --programs 100000 --out bench/results/virtual runs many, and keeps what was run."""

import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing

from stack import SLACK, Failure, Stack, check, wait_for


class Way(typing.NamedTuple):
    env: dict = {}
    options: tuple = ("--class", "best-effort")

    def __str__(self):
        env = ", ".join(f"{k} {v}" for k, v in self.env.items()) or "as it comes"
        return env if self.options == Way().options else f"{env}, class high, {' '.join(self.options)}"


# Each with its own share of the programs: when a launch that finds nothing queued is made at once, and the window. A narrow one makes
# long queues. Two are tenants of class high.
NARROW = Way({"LITHOS_QUEUE": "always", "LITHOS_QUEUE_WINDOW_US": "1"})
WAYS = [
    Way(),
    NARROW,
    Way({"LITHOS_QUEUE": "room", "LITHOS_QUEUE_WINDOW_US": "20"}),
    Way({"LITHOS_QUEUE": "always"}),
    Way({"LITHOS_HAND_OVER": "on"}),
    Way({"LITHOS_QUEUE": "always"}, ("--hand-over", "on")),
    Way(options=("--gather", "2ms")),
]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
BATCH = 4000  # programs a process: some make a context, and there are stamps for 64 of a process


def order(stack):
    return str(stack.build / "tests/lithos-order")


def run_programs(stack, seed, programs, way, options=()):
    """So many programs as a tenant, of class high where they are handed over; what it printed."""
    done = stack.lithos(
        "run", *way.options, "--quota", "40%", "--name", "order", "--", order(stack),
        "--seed", seed, "--programs", programs, *options, env=dict(stack.env, **way.env), timeout=600)
    check(done.returncode == 0, f"{way} --seed {seed}: {done.returncode}: {done.stdout} {done.stderr}")
    printed = json.loads(done.stdout)
    check(printed["programs"] == programs, printed)
    return printed


def bare(stack, programs):
    """The programs themselves are right: without LithOS the same comes of them."""
    done = subprocess.run([order(stack), "--programs", str(programs)], env=stack.env, capture_output=True, text=True, timeout=300)
    check(done.returncode == 0, f"without LithOS: {done.stdout} {done.stderr}")


def changes(stack):
    """lithosd is killed and comes back, the class changes and changes back, and the programs notice nothing."""
    child = stack.run("40%", "changes", order(stack), "--programs", "0", "--seed", "700001",
                      options=("--class", "best-effort"), env=dict(stack.env, **NARROW.env))

    def queued():
        t = stack.tenants().get("changes")
        return t and t["queue"]["queued"] > 300 and t

    def drained():  # for each of these reasons: which programs have run by now is chance
        t = queued()
        return t and all(t["queue"]["drained"][why] > 0 for why in ("sync", "first", "capture")) and t

    t = wait_for("calls are queued, and drained", drained, 30 * SLACK)[0]
    check(t["class"] == "best-effort", t)
    check(t["counters"]["escaped"] == 0, t["counters"])
    stack.kill_daemon()
    time.sleep(0.2)
    stack.start_daemon()
    t = wait_for("the tenant is back", lambda: stack.tenants().get("changes"), 20 * SLACK)[0]
    check(t["class"] == "best-effort", f"lithosd forgot the class: {t}")
    wait_for("calls are queued as before", queued, 30 * SLACK)
    check(stack.lithos("set", "changes", "--class", "high").returncode == 0, "set --class high")
    check(stack.tenants()["changes"]["class"] == "high", stack.tenants())
    before = wait_for("nothing is queued any more", lambda: settled(stack), 20 * SLACK)[0]
    check(stack.lithos("set", "changes", "--class", "best-effort").returncode == 0, "set --class best-effort")
    wait_for("calls are queued again", lambda: stack.tenants()["changes"]["queue"]["queued"] > before, 30 * SLACK)
    child.terminate()  # it ends with the program under way
    check(child.wait(60 * SLACK) == 0, stack.log("changes"))


def sample(stack):
    """A program that knows nothing of these tests, whose calls are of each kind; and its fault is told as ever."""
    for way in ("order", "graphs", "contexts") if SLACK == 1 else ("graphs",):
        done = stack.lithos("run", "--class", "best-effort", "--quota", "40%", "--name", "exact", "--",
                            stack.sample("lithos-exact"), "--only", way, env=dict(stack.env, LITHOS_QUEUE="always"), timeout=200)
        check(done.returncode == 0, f"lithos-exact --only {way}: {done.stdout} {done.stderr}")
    done = stack.lithos("run", "--class", "best-effort", "--quota", "40%", "--name", "exact", "--",
                        stack.sample("lithos-exact"), "--fault", timeout=200)
    check(done.returncode == 0 and "error 700" in done.stdout, f"lithos-exact --fault: {done.stdout} {done.stderr}")


def settled(stack):
    """What has been queued ever, once that stays the same while launches go on."""
    def look():
        t = stack.tenants()["changes"]
        return t["queue"]["queued"], t["counters"]["launches"]

    queued, launches = look()
    time.sleep(0.1)
    now, more = look()
    return queued if now == queued and more > launches else 0


def killed(stack):
    """In the middle of a queue that is full, with kernels of which each takes a while."""
    child = stack.run("40%", "killed", order(stack), "--programs", "0", "--seed", "800001", options=("--class", "best-effort"),
                      env=dict(stack.env, **NARROW.env))
    wait_for("calls wait in its queues", lambda: stack.tenants().get("killed", {"queue": {"depth": 0}})["queue"]["depth"] > 0,
             30 * SLACK, 0.001)
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    wait_for("its end", lambda: "killed" not in stack.tenants(), 20 * SLACK)
    run_programs(stack, 900001, 20, NARROW)


def handed_over(stack):
    """A tenant of class high has queues when it says so, or has CPUs to spare, and nothing waits there for the card."""
    one_cpu = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    for options, prefix, queues in ((("--hand-over", "off"), (), False), (("--hand-over", "on"), (), True), ((), one_cpu, False)):
        child = stack.run("40%", "handed", *prefix, order(stack), "--programs", "0", "--seed", "600001", options=options,
                          env=dict(stack.env, LITHOS_QUEUE="always"))
        t = wait_for("it launches", lambda: (t := stack.tenants().get("handed")) and t["counters"]["launches"] > 500 and t, 30 * SLACK)[0]
        check((t["queue"]["queued"] > 0) == queues, t["queue"])
        child.terminate()
        check(child.wait(60 * SLACK) == 0, stack.log("handed"))
    bad = stack.lithos("run", "--hand-over", "perhaps", "--", "/bin/true")
    check(bad.returncode == 125 and "on or off" in bad.stderr, bad.stderr)


def many(stack, seed, programs):
    """All of them, batch by batch: a case of the result for each."""
    cases = []
    while sum(c["programs"] for c in cases) < programs:
        done = sum(c["programs"] for c in cases)
        n = min(BATCH, programs - done)
        way = WAYS[done // BATCH % len(WAYS)]
        began = time.monotonic()
        printed = run_programs(stack, seed + done, n, way, ["--fork"])
        cases.append({"case": str(way), "rep": done // BATCH + 1, **printed, "seconds": round(time.monotonic() - began, 1)})
        print(cases[-1], flush=True)
    return cases


def head():
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=SOURCE).stdout.strip()


def command(options):
    """As one would type it again: without the folder."""
    return f"python3 tests/e2e/order.py --programs {options.programs} --seed {options.seed} --scale {options.scale:g}"


def write_result(options, cases, commit):
    """As bench/ writes them (docs/bench.md)."""
    equal = sum(c["programs"] for c in cases)
    doc = {
        "name": "order", "card": "virtual NVIDIA H200", "driver": "vgpu", "commit": commit,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command(options), "repetitions": 1, "cases": cases,
        "bars": [{"what": "programs equal to the reference", "value": equal, "op": ">=", "limit": options.programs}],
        "notes": "Random programs of 1 to 4 threads on 8 streams and the threads' own, forks among them, over every stream-ordered call that the "
                 "virtual GPU has; each memory compared with what program order leaves, worked out beforehand. The first program that differs "
                 "ends the run.",
    }
    path = pathlib.Path(options.out)
    path.mkdir(parents=True, exist_ok=True)
    (path / "order.json").write_text(json.dumps(doc, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--programs", type=int, default=0, help="only run so many programs")
    parser.add_argument("--seed", type=int, default=1, help="of the first of them")
    parser.add_argument("--scale", type=float, default=10, help="of the virtual GPU's time")
    parser.add_argument("--out", metavar="DIR", help="where order.json is written")
    options = parser.parse_args()
    os.environ.pop("LITHOS_TEST_CLASS", None)
    os.environ.setdefault("LITHOS_BUILD", str(SOURCE / "build/dev"))
    with Stack(scale=options.scale) as stack:
        stack.start_daemon()
        if options.programs:
            commit = head() if options.out else None
            cases = many(stack, options.seed, options.programs)
            if options.out:
                write_result(options, cases, commit)
            return
        bare(stack, 50)
        for i, way in enumerate(WAYS):
            run_programs(stack, 1 + 100 * i, 60 if SLACK == 1 else 15, way, ["--fork"])
        sample(stack)
        handed_over(stack)
        changes(stack)
        killed(stack)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
