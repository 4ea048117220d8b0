"""`lithosd --share preempt`: a best-effort tenant is off the card as soon as another has work, whatever it runs."""

import json
import subprocess
import sys

from stack import Stack, check, wait_for

SCALE = 20
# One wave of blocks of 2 ms: nothing that could be cut, and nothing that ends in time.
ONE_WAVE = ("lithos-burn", "--kind", "long", "--grid", "132", "--iters", "400000", "--seconds", "0")
SERVE = ("lithos-serve", "--period-us", "5000", "--seconds", "0.1", "--warmup", "0.01", "--json")


def slice_of(stack, name):
    return stack.tenants()[name]["slice"]


def serve(stack, what, *words):
    """A service's figures in the card's microseconds, from a request every 5 ms."""
    done = stack.lithos("run", "--quota", "50%", "--name", "hp", "--class", "high", "--", stack.sample(SERVE[0]), *SERVE[1:], *words,
                        "--time-scale", SCALE, timeout=60)
    check(done.returncode == 0, done.stderr)
    out = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: p50 {out['p50_us']:.0f} us, p99 {out['p99_us']:.0f} us", flush=True)
    return out


def options(stack):
    """The policy and the way of sharing are one thing; what contradicts it is refused."""
    lithosd = [str(stack.build / "bin/lithosd"), "--socket", str(stack.dir / "other.sock")]
    for more in (["--share", "preempt", "--mps=on"], ["--policy", "preempt", "--mps=on"], ["--share=spatial", "--policy=preempt"],
                 ["--share", "preempt", "--policy", "lithos"], ["--share", "sideways"], ["--turn", "5000"]):
        done = subprocess.run([*lithosd, *more], env=stack.env, timeout=20, capture_output=True, text=True)
        check(done.returncode == 2 and "preempt" in done.stderr, f"{more}: {done}")


def burn(stack):
    stack.run("50%", "be", stack.sample(ONE_WAVE[0]), *ONE_WAVE[1:], "--time-scale", str(SCALE), options=("--class", "best-effort"))
    wait_for("its slice is set", lambda: "be" in stack.tenants() and slice_of(stack, "be")["set"], 20)


def long_turns():
    """A request of 6 ms is cut short by turns of 2 ms, and each time two switches and a turn of the other's go by."""
    figures = {}
    for turn_us in (0, 20000):
        with Stack(scale=SCALE, mps="off") as stack:
            stack.start_daemon("--share", "preempt", *(("--turn", str(turn_us)) if turn_us else ()))
            burn(stack)
            other = stack.run("1", "other", stack.sample("lithos-burn"), "--seconds", "0", "--time-scale", str(SCALE), options=("--class", "high"))
            wait_for("it works", lambda: "other" in stack.tenants() and slice_of(stack, "other")["groups"], 20)
            wait_for("its turns", lambda: slice_of(stack, "other")["set"] == (turn_us > 0), 10)
            check(slice_of(stack, "other")["us"] == (turn_us or None), slice_of(stack, "other"))
            told = stack.lithos("explain", "other").stdout
            check((f"turns of {turn_us} us on the GPU: 1 of 1" if turn_us else "turns of the driver's own length") in told, told)
            other.terminate()
            other.wait(20)
            figures[turn_us] = serve(stack, f"turns of {turn_us or 'the driver'}, requests of 6 ms", "--kernels", "60", "--period-us", "20000",
                                     "--warmup", "0.1", "--seconds", "0.4")
    check(figures[20000]["p50_us"] < 0.95 * figures[0]["p50_us"], "requests of 6 ms are as slow in one turn of theirs as in three")


def main():
    with Stack(scale=SCALE, mps="off") as stack:
        options(stack)
        stack.start_daemon("--share", "preempt")
        scheduler = stack.status()["scheduler"]
        check((scheduler["policy"], scheduler["share"]) == ("preempt", "preempt"), scheduler)

        burn(stack)
        s = slice_of(stack, "be")
        check(s["us"] == 1 and s["set"] == s["groups"] and not s["refused"] and not s["why"], s)
        for words in ("status",), ("explain", "be"):
            told = stack.lithos(*words).stdout
            check("turns of 1 us on the GPU: 1 of 1 channel groups have them" in told, told)
        short = serve(stack, "turns of 1 us")

        check(stack.lithos("set", "be", "--class", "high").returncode == 0, "set --class high")
        wait_for("it is given its own back", lambda: slice_of(stack, "be")["set"] == 0, 10)
        check(slice_of(stack, "be")["us"] is None, slice_of(stack, "be"))
        check("turns of the driver's own length" in stack.lithos("explain", "be").stdout, "explain of a high-priority tenant")
        usual = serve(stack, "turns of the driver's length")
        check(short["p50_us"] < usual["p50_us"] / 2, "no sooner off the card with short turns")
        check(stack.lithos("set", "be", "--class", "best-effort").returncode == 0, "set --class best-effort")
        wait_for("and short ones again", lambda: slice_of(stack, "be")["set"] == 1, 10)

        # a driver that does not let it: the program runs, and it is said
        stack.run("20%", "refused", stack.sample("lithos-burn"), "--seconds", "0", "--time-scale", str(SCALE),
                  options=("--class", "best-effort"), env=dict(stack.env, LITHOS_VGPU_RM="refuse"))
        wait_for("it is refused", lambda: "refused" in stack.tenants() and slice_of(stack, "refused")["refused"], 20)
        s = slice_of(stack, "refused")
        check(s["set"] == 0 and "0x1b" in s["why"] and "permissions" in s["why"], s)
        check("1 refused: the driver refuses" in stack.lithos("status").stdout, "lithos status")
        wait_for("and runs", lambda: stack.tenants()["refused"]["counters"]["launches"] > 2, 20)
    long_turns()
    return 0


if __name__ == "__main__":
    sys.exit(main())
