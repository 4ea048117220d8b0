#!/usr/bin/env python3
"""Bad input of every kind: a clear error each, nothing lost.

After each blow the tenant that runs beside goes on launching and its TPCs are still its own.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile

from stack import MSG_VERSION, Stack, check, message, wait_for

MSG_SHUTDOWN = 8


def expect(done, code, *words):
    """The command failed (code None: with anything but 0) and its message has these words."""
    text = done.stderr + done.stdout
    check(done.returncode == code if code is not None else done.returncode != 0, f"exit {done.returncode}: {text}")
    for word in words:
        check(word.lower() in text.lower(), f"the message does not say {word!r}: {text!r}")


def bad_quotas(stack):
    for quota, word in (("0", "quota"), ("0%", "quota"), ("101%", "100"), ("half", "half"), ("-3", "quota"),
                        ("67", "66"), ("", "quota"), ("40%%", "40%%"), ("1e9", "1e9")):
        done = stack.lithos("run", f"--quota={quota}", "--name", "bad", "--", "/bin/true")
        expect(done, None, word)
        check("/bin/true" not in done.stderr or "quota" in done.stderr, done.stderr)
    expect(stack.lithos("set", "nobody", "10"), None, "nobody")
    expect(stack.lithos("set", "beside", "0"), None, "quota")
    expect(stack.lithos("set", "beside", "99"), None, "TPC")
    expect(stack.lithos("run", "--quota", "10", "--gpu", "7", "--", "/bin/true"), None, "7")
    expect(stack.lithos("run", "--quota", "10", "--name", "beside", "--", "/bin/true"), None, "beside")
    expect(stack.lithos("run", "--quota", "10", "--", "/no/such/program"), 127, "/no/such/program")


def garbage_on_the_socket(stack, seed=7):
    rng = random.Random(seed)
    for i in range(300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(5)
            s.connect(stack.env["LITHOS_SOCKET"])
            kind = rng.randrange(6)
            size = rng.choice([16, 17, 64, 200, 1000, 4000])
            body = rng.randbytes(size)
            if kind:  # a good header before a bad body
                type_ = rng.choice([t for t in range(12) if t != MSG_SHUTDOWN])  # that one would be obeyed
                body = message(type_, MSG_VERSION if kind < 5 else 99, size) + body[16:]
            try:
                s.send(body)
                s.recv(65536)
            except (ConnectionError, BrokenPipeError):
                pass
    check(stack.daemon.poll() is None, "garbage ended the daemon")


def foreign_uid(stack):
    if os.geteuid() != 0:
        print("  skipped: needs root to become another user")
        return
    os.chmod(stack.dir, 0o755)
    for part in ("bin/lithos", "lib/lithos/liblithos.so"):  # the build may lie where they may not look
        (stack.dir / "alien" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stack.build / part, stack.dir / "alien" / part)
    program = str(stack.dir / "alien/bin/lithos")

    def become_nobody():
        os.setgid(65534)
        os.setuid(65534)

    done = subprocess.run([program, "run", "--quota", "5", "--name", "alien", "--", "/bin/true"], env=stack.env, cwd="/",
                          preexec_fn=become_nobody, capture_output=True, text=True, timeout=90)
    expect(done, None)
    check("permission" in done.stderr.lower() or "uid" in done.stderr.lower(), f"says not why: {done.stderr!r}")
    check("alien" not in stack.tenants(), "a foreign user was admitted")


def missing_driver(stack):
    env = dict(stack.env, LITHOS_LIBCUDA="/no/such/libcuda.so.1")
    expect(stack.lithos("doctor", env=env, timeout=60), 1, "/no/such/libcuda.so.1")
    probe = subprocess.run([stack.sample("lithos-probe"), "--json", "--no-cache"], env=env, capture_output=True, text=True,
                           timeout=60)
    check("/no/such/libcuda.so.1" in probe.stdout + probe.stderr, f"{probe.stdout} {probe.stderr}")


def full_disk(stack):
    """The topology cache on a full disk: said, and the answer given all the same."""
    if os.geteuid() != 0:
        print("  skipped: needs root to mount a small file system")
        return
    with tempfile.TemporaryDirectory() as where:
        script = (f"mount -t tmpfs -o size=4k,mode=700 tmpfs {where} && "
                  f"(head -c 4096 /dev/zero > {where}/fill; true) && exec {stack.sample('lithos-probe')} --json --cache-dir {where}")
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], env=stack.env, capture_output=True, text=True,
                              timeout=60)
    if done.returncode and ("unshare:" in done.stderr or "mount:" in done.stderr):
        print(f"  skipped: may not mount here: {done.stderr.strip()}")
        return
    check(done.returncode == 0, f"the probe failed on a full disk: {done.returncode} {done.stdout} {done.stderr}")
    check('"valid"' in done.stdout, f"no answer: {done.stdout}")
    check('"atoms": true' in done.stdout, f"the self-test of atoms beside a tenant outside of MPS: {done.stdout}")
    check("space" in done.stderr.lower(), f"the full disk is not said: {done.stderr!r}")


def corrupt_cache(stack):
    cache = stack.dir / "cache"
    files = [p for p in cache.rglob("*") if p.is_file()]
    check(files, "the probe left no cache")
    for f in files:
        f.write_bytes(os.urandom(200))
    done = subprocess.run([stack.sample("lithos-probe"), "--json"], env=dict(stack.env, LITHOS_ATOMS="off"), capture_output=True, text=True, timeout=60)
    check(done.returncode == 0 and '"valid"' in done.stdout, f"a damaged cache stops the probe: {done.stderr}")


def main():
    with Stack(scale=5, probed=False) as stack:
        stack.start_daemon()
        stack.run(20, "beside", stack.sample("lithos-burn"), "--seconds", "300", "--iters", "2000")
        wait_for("the tenant beside launches",
                 lambda: "beside" in (t := stack.tenants()) and t["beside"]["counters"]["launches"] > 0, 20)
        held = stack.tenants()["beside"]["gpus"][0]["bits"]
        for blow in (bad_quotas, garbage_on_the_socket, foreign_uid, missing_driver, full_disk, corrupt_cache):
            print(blow.__name__, flush=True)
            before = stack.tenants()["beside"]["counters"]["launches"]
            blow(stack)
            after = stack.tenants()
            check(set(after) == {"beside"}, f"tenants after {blow.__name__}: {sorted(after)}")
            check(after["beside"]["gpus"][0]["bits"] == held, f"{blow.__name__} moved TPCs")
            wait_for("launches go on", lambda: stack.tenants()["beside"]["counters"]["launches"] > before, 20)
    # a card whose descriptor layout was never proved: the hook stays off and the quota is held coarsely
    with Stack(scale=20, cards=("a100",)) as stack:
        print("unproved layout", flush=True)
        stack.start_daemon()
        stack.run("50%", "coarse", stack.sample("lithos-burn"), "--seconds", "300", "--iters", "2000", options=("--verbose",))
        wait_for("the coarse tenant is admitted", lambda: "coarse" in stack.tenants(), 20)
        tenant = stack.tenants()["coarse"]
        check(tenant["mode"] == "coarse", f"mode {tenant['mode']}")
        wait_for("the tenant's word", lambda: "coarse" in stack.log("coarse").lower(), 20)
        expect(stack.lithos("set", "coarse", "10"), None, "coarse")


if __name__ == "__main__":
    sys.exit(main())
