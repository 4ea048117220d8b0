"""TPCs lent and taken back, seen from the card: whose blocks run on which TPCs. Usage: lend.py borrow|atoms|zero|death|policy"""

import json
import signal
import subprocess
import sys
import time

from stack import SLACK, Stack, bits, check, wait_for

SCALE = 10
LEASE_S = 1.0  # proto/arena.h, LITHOS_LEASE_NS
# A request every 2 s here, of kernels for about 0.6 s: idle and busy by turns.
BURSTS = ("lithos-serve", "--json", "--period-us", "200000", "--kernels", "400")
WAVES = ("--grid", "2000", "--iters", "3000")  # kernels of about a millisecond here on the whole card
LONG = ("--grid", "60000", "--iters", "60000", "--depth", "1")  # and of more than half a second


class Tenant:
    def __init__(self, stack, name, quota, *options, program=("lithos-burn", *WAVES)):
        command = [stack.sample(program[0]), "--time-scale", str(SCALE), "--seconds", "0", "--warmup", "0.05", *program[1:]]
        self.stack, self.name = stack, name
        self.child = stack.run(quota, name, *command, options=options, stdout=subprocess.PIPE)
        wait_for(f"{name} is admitted", lambda: name in stack.tenants(), 20)

    def gpu(self):
        return self.stack.tenants()[self.name]["gpus"][0]

    def sm_ns(self):
        """Time of its blocks on each TPC so far, as the card counts it."""
        client = self.stack.card_clients().get(self.child.pid, {"sm_ns": {}})
        return {int(tpc): ns for tpc, ns in client["sm_ns"].items()}

    def worked_on(self, seconds):
        """On which TPCs it has run blocks in that time, and for how long."""
        before = self.sm_ns()
        time.sleep(seconds)
        after = self.sm_ns()
        return {tpc: ns - before.get(tpc, 0) for tpc, ns in after.items() if ns > before.get(tpc, 0)}

    def end(self):
        """Its figures."""
        self.child.terminate()
        out = self.child.communicate(timeout=20)[0]
        wait_for(f"the end of {self.name}", lambda: self.name not in self.stack.tenants(), 10)
        return out.decode()


def explain(stack, name):
    done = stack.lithos("explain", "--json", name)
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)["gpus"][0]


def busy(owner):
    return explain(owner.stack, owner.name)["outstanding"] > 0


def goes(owner, to_be_busy):
    """Wait until it begins, or has ended, a request."""
    wait_for(f"{owner.name} is {'not ' * to_be_busy}busy", lambda: busy(owner) != to_be_busy, 10 * SLACK, 0.002)
    wait_for(f"{owner.name} is {'' if to_be_busy else 'not '}busy", lambda: busy(owner) == to_be_busy, 10 * SLACK, 0.002)


def on(used, tpcs):
    return sum(ns for tpc, ns in used.items() if tpc in tpcs)


def borrow(stack):
    """An idle owner's TPCs are used by another, and its own again as soon as it comes back."""
    stack.start_daemon()
    owner = Tenant(stack, "owner", "75%", "--slo", "500ms", program=BURSTS)
    for _ in range(2):
        goes(owner, True)
    be = Tenant(stack, "be", "25%", "--class", "best-effort", "--weight", "3")
    own, others = bits(be.gpu()["bits"]), bits(owner.gpu()["bits"])
    goes(owner, False)
    used = be.worked_on(0.3)
    gpu, _ = wait_for("others may use the owner's TPCs", lambda: (g := owner.gpu())["lent_away"] and g, 10 * SLACK)
    check(gpu["lent_away"] == len(others) and bits(gpu["lent_away_bits"]) == others, gpu)
    why, _ = wait_for("TPCs are lent", lambda: bits((e := explain(stack, "be"))["lent"]) >= others and e, 10 * SLACK)
    check(why["rule"]["strict"] and not why["rule"]["hold"], why)
    lent, kept = on(used, others), on(used, own)
    print(f"owner idle: {lent / max(kept, 1):.1f} times as much on lent TPCs as on its own", flush=True)
    check(lent > kept, f"an idle owner's TPCs are not used: {used}")

    goes(owner, True)
    time.sleep(0.02 * SLACK)  # what ran there, and what was sent before the rule was read: kernels of 5 ms at most
    beside = be.worked_on(0.2)
    back = on(beside, others)
    print(f"owner busy: {back / max(lent, 1):.3f} of that", flush=True)
    check(back < lent / 3, f"blocks of others on a busy owner's TPCs: {beside}, before {used}")
    check(on(beside, own) > 0, "its own TPCs stand idle")

    goes(owner, False)
    told = stack.lithos("explain", "be").stdout
    check("owns 16 TPCs" in told and "in the last second" in told, told)
    told = stack.lithos("explain", "owner").stdout
    check("a return may lose" in told and "launches at once" in told, told)
    t = stack.tenants()
    check(t["be"]["share"] == {"weight": 3, "floor": 0, "slip": None, "slo_us": None}, t["be"]["share"])
    check(t["owner"]["share"]["slo_us"] == 500000, t["owner"]["share"])
    reaction = stack.status()["scheduler"]["reaction"]
    check(reaction["count"] > 0 and reaction["p50_us"] < 1000 * SLACK, reaction)
    # a class is changed while it runs: high-priority launches go at once, on own TPCs
    check(stack.lithos("set", "be", "--class", "high").returncode == 0, "set --class high")
    wait_for("it borrows no more", lambda: be.gpu()["lent"] == 0, 5)
    refused = stack.lithos("set", "be", "--weight", "2")
    check(refused.returncode == 1 and "best-effort" in refused.stderr, refused)
    check("launches at once" in stack.lithos("explain", "be").stdout, "explain of a high-priority tenant")
    be.end()
    served = json.loads(owner.end())
    print(f"owner: p50 {served['p50_us'] / 1e3:.1f} ms, p99 {served['p99_us'] / 1e3:.1f} ms of the card", flush=True)
    check(served["p99_us"] < 1.5 * served["p50_us"] * SLACK, served)


def atoms(stack):
    """Kernels that take longer than the owner is busy, in atoms: TPCs are lent and taken back in the middle of one."""
    stack.start_daemon()
    owner = Tenant(stack, "owner", "75%", "--slip", "2", program=BURSTS)
    be = Tenant(stack, "be", "25%", "--class", "best-effort", "--atom", "5ms", program=("lithos-burn", *LONG))
    own, others = bits(be.gpu()["bits"]), bits(owner.gpu()["bits"])
    wait_for("kernels are cut", lambda: stack.tenants()["be"]["atoms"]["cut"] > 1, 30 * SLACK)

    goes(owner, True)
    goes(owner, False)
    begun = stack.tenants()["be"]["counters"]["launches"]
    lent = on(be.worked_on(0.3), others)
    goes(owner, True)
    time.sleep(0.02 * SLACK)  # an atom or two
    beside = be.worked_on(0.2)
    t = stack.tenants()["be"]
    back, ended = on(beside, others), t["counters"]["launches"] - begun
    print(f"owner idle: {lent / 1e6:.0f} ms of TPCs that are lent; busy: {back / 1e6:.0f} ms; {ended} kernels ended meanwhile", flush=True)
    check(lent > 0 and back < lent / 3, f"lent {lent} ns, beside {beside}")
    check(on(beside, own) > 0, "its own TPCs stand idle")

    cut, seen = t["atoms"], t["observed"]
    print(f"{cut['cut']} kernels in {cut['atoms']} atoms, {seen['launches']} launches seen, {seen['p50_us']} us", flush=True)
    check(t["queue"]["failed"] == 0 and cut["atoms"] > 10 * cut["cut"] > 0, t)
    # a launch in atoms is one, however they were given out; that whose atoms go just now is not counted by its process yet
    known = t["counters"]["launches"] + t["counters"]["driver_qmds"]
    check(seen["launches"] <= known + 1 and not sum(seen["lost"].values()), (seen, t["counters"]))
    be.end()
    owner.end()


def zero(stack):
    """A tenant without TPCs of its own lives on those of idle owners, on those of nobody, and never starves."""
    stack.start_daemon()
    refused = stack.lithos("run", "--quota", "0", "--", "/bin/true")
    check(refused.returncode == 125 and "best-effort" in refused.stderr, refused)
    free = stack.status()["gpus"][0]["free"]
    z = Tenant(stack, "zero", "0", "--class", "best-effort")
    check(stack.status()["gpus"][0]["free"] == free, "a quota of 0 takes TPCs from others")
    wait_for("it is lent what nobody owns", lambda: z.gpu()["lent"] == free, 10)
    check(z.gpu()["tpcs"] == 0 and z.gpu()["bits"] == "-", z.gpu())
    check(len(z.worked_on(0.2)) == free, "it does not run on all of the card")

    owner = Tenant(stack, "owner", "100%", program=("lithos-burn", "--depth", "8"))  # never idle
    wait_for("nothing is left to lend", lambda: explain(stack, "zero")["why"] == "owner_busy", 20)
    before = stack.tenants()["zero"]["counters"]["launches"]
    wait_for("it launches all the same", lambda: stack.tenants()["zero"]["counters"]["launches"] > before + 2, 10 * SLACK)
    why = explain(stack, "zero")
    check(why["waited_s"]["held"] > 0.2, why)
    used, owned = z.worked_on(0.5), owner.worked_on(0.3)
    print(f"beside an owner that is never idle: {sum(used.values())} ns on {len(used)} TPCs", flush=True)
    check(len(owned) == free and sum(used.values()) < sum(owned.values()) / 4, (used, owned))

    check(stack.lithos("set", "owner", "50%").returncode == 0, "set owner 50%")
    wait_for("it is lent the other half", lambda: z.gpu()["lent"] == free // 2, 10)
    refused = stack.lithos("set", "zero", "--class", "high")
    check(refused.returncode == 1 and "quota of 0" in refused.stderr, refused)
    check(stack.lithos("set", "zero", "5").returncode == 0, "from no quota to one")
    check(z.gpu()["tpcs"] == 5, z.gpu())
    check(stack.lithos("set", "zero", "0").returncode == 0, "and back")
    check(z.gpu()["tpcs"] == 0 and stack.status()["gpus"][0]["free"] == free - free // 2, stack.status()["gpus"])
    owner.end()
    z.end()


def death(stack):
    """lithosd is killed while TPCs are lent: all go on, nobody on an owner's TPCs for longer than the lease says."""
    stack.start_daemon()
    owner = Tenant(stack, "owner", "50%", "--slo", "1s", program=BURSTS)
    goes(owner, True)
    be = Tenant(stack, "be", "25%", "--class", "best-effort")
    z = Tenant(stack, "zero", "0", "--class", "best-effort", "--floor", "2", "--weight", "7")
    others = bits(owner.gpu()["bits"])
    own = bits(be.gpu()["bits"])
    goes(owner, False)
    wait_for("its TPCs are lent", lambda: owner.gpu()["lent_away"] > 0, 10 * SLACK)
    wait_for("and used", lambda: others & (set(be.worked_on(0.05)) | set(z.worked_on(0.05))), 10)
    stack.kill_daemon()
    time.sleep(LEASE_S + 0.3)
    after, refuge = be.worked_on(0.3), z.worked_on(0.3)
    check(after and set(after) <= own, f"after the lease on {sorted(set(after) - own)}")
    print(f"no lithosd: the one on {len(after)} TPCs of its own, the other on {sorted(refuge)}", flush=True)
    check(refuge and not (others | own) & set(refuge), f"a tenant without a quota runs on {sorted(refuge)}, not on what nobody owns")
    check(set(owner.worked_on(2.2)) == others, "the owner has not all of its own")

    stack.start_daemon()
    wait_for("all are back", lambda: all(p["attached"] for t in stack.tenants().values() for p in t["pids"]), 10)
    t = stack.tenants()
    check(set(t) == {"owner", "be", "zero"} and t["zero"]["share"]["weight"] == 7 and t["zero"]["share"]["floor"] == 2, t)
    check(t["owner"]["share"]["slo_us"] == 1e6 and t["zero"]["quota"] == "0", t)
    wait_for("TPCs are lent again", lambda: z.gpu()["lent"] > 0, 20)
    for tenant in (owner, be, z):
        tenant.end()
    check(stack.card_clients().get(owner.child.pid, {"hangs": 0})["hangs"] == 0, "a launch hung")


def policy(stack):
    """What cannot be had is refused with its reason; others hold."""
    lithosd = str(stack.build / "bin/lithosd")

    def refused(*options):
        done = subprocess.run([lithosd, "--socket", str(stack.dir / "other.sock"), *options], env=stack.env, timeout=20,
                              capture_output=True, text=True)
        check(done.returncode != 0, f"{options}: {done}")
        return done.stderr

    for name, word in (("reef", "taken back"), ("orion", "profiles"), ("tgs", "rate"), ("timeslice", "--mps=off"), ("none", "help")):
        told = refused("--policy", name)
        check(word in told, f"{name}: {told}")
    check("idle" in refused("--policy", "lithos", "--observe=off"), "lithos without observation")
    listed = subprocess.run([lithosd, "--policy", "help"], capture_output=True, text=True, timeout=20).stdout
    check("lithos " in listed and "cannot be had" in listed, listed)

    stack.start_daemon("--policy", "partition")
    owner = Tenant(stack, "owner", "75%", program=BURSTS)
    be = Tenant(stack, "be", "25%", "--class", "best-effort")
    own = bits(be.gpu()["bits"])
    wait_for("it runs", lambda: be.sm_ns(), 10)
    check(set(be.worked_on(0.5)) == own, "a partition is left, or not used")
    check(be.gpu()["lent"] == 0 and explain(stack, "be")["why"] in ("policy", "idle"), explain(stack, "be"))
    be.end()
    owner.end()
    stack.kill_daemon(signal.SIGTERM)

    stack.start_daemon("--policy", "mps")
    one, two = Tenant(stack, "one", "25%"), Tenant(stack, "two", "75%")
    everything = bits(stack.status()["gpus"][0]["bits"])
    for tenant in (one, two):
        wait_for(f"{tenant.name} is everywhere", lambda tenant=tenant: set(tenant.worked_on(0.2)) == everything, 10)
        check(bits(tenant.gpu()["bits"]) == everything, tenant.gpu())
    two.end()
    one.end()


def main():
    with Stack(scale=SCALE) as stack:
        {"borrow": borrow, "atoms": atoms, "zero": zero, "death": death, "policy": policy}[sys.argv[1]](stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
