#!/usr/bin/env python3
"""lithos and the sample tenants, with and without a (virtual) GPU."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

from stack import Stack, bits, check, wait_for

BUILD = pathlib.Path(os.environ["LITHOS_BUILD"]).resolve()
BURN = ("--seconds", "300", "--iters", "2000")


def run(*command, env=None, timeout=60, **options):
    return subprocess.run(list(map(str, command)), env=env, timeout=timeout, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, **options)


def expect(done, code, *words):
    text = done.stdout + done.stderr
    check(done.returncode == code, f"exit {done.returncode}, not {code}: {text}")
    for word in words:
        check(word in text, f"{word!r} is not said: {text}")


def bare_env(folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LITHOS_", "CUDA_", "LD_"))}
    env.update(LITHOS_SOCKET=f"{folder}/lithosd.sock", LITHOS_CACHE_DIR=f"{folder}/cache",
               LITHOS_LIBCUDA="/no/such/libcuda.so.1")
    return env


def without_gpu():
    """A machine with no driver: every command says so."""
    lithos = BUILD / "bin/lithos"
    with tempfile.TemporaryDirectory(prefix="lithos-e2e-") as folder:
        env = bare_env(folder)
        expect(run(lithos, "status", env=env), 1, "no lithosd runs", "lithos run")
        expect(run(lithos, "set", "a", "5", env=env), 1, "no lithosd runs")
        expect(run(lithos, "stop", env=env), 1, "no lithosd runs")
        doctor = run(lithos, "doctor", env=env)
        expect(doctor, 1, "FAIL  driver", "/no/such/libcuda.so.1", "->")
        found = json.loads(run(lithos, "doctor", "--json", env=env).stdout)
        check(not found["ok"] and any(f["level"] == "FAIL" and f["what"] == "driver" for f in found["findings"]), found)
        expect(run(lithos, "run", "--quota", "5", "--", "true", env=env), 125, "/no/such/libcuda.so.1")
        expect(run(lithos, "stop", env=env), 0)
        expect(run(lithos, env=env), 2, "usage")
        expect(run(lithos, "frobnicate", env=env), 2, "frobnicate")
        expect(run(lithos, "run", env=env), 125, "no program")
        expect(run(lithos, "run", "--quota", "5", env=env), 125, "no program")
        expect(run(lithos, "run", "--frob", "true", env=env), 125, "--frob")
        expect(run(lithos, "run", "--socket", folder + "/" + "x" * 300, "true", env=env), 125, "socket")
        for word in ("run", "status", "set", "stop", "doctor", "demo"):
            expect(run(lithos, word, "--help", env=env), 0, f"usage: lithos {word}")
        expect(run(lithos, "version", env=env), 0, "lithos ")
        blocked = pathlib.Path(folder) / "file"
        blocked.write_text("")
        expect(run(lithos, "run", "--socket", blocked / "sock", "--quota", "5", "true", env=env), 125, str(blocked))


def no_daemon_program():
    """A daemon that cannot start: its own words are shown."""
    with tempfile.TemporaryDirectory(prefix="lithos-e2e-") as folder:
        env = bare_env(folder)
        (pathlib.Path(folder) / "lithosd.sock.lock").mkdir()
        expect(run(BUILD / "bin/lithos", "run", "--quota", "5", "true", env=env), 125, "ended at once", "lithosd.sock.lock")


def doctor(stack):
    done = stack.lithos("doctor", timeout=90)
    expect(done, 0, "ok    driver", "virtual GPU", "V04_00", "66 TPCs", "ok    LD_PRELOAD", "none runs")
    wrong = [line for line in done.stdout.splitlines() if line.startswith(("warn", "FAIL"))]
    allowed = "needs more than libc" if "san" in done.stdout else "\0"
    check(all(allowed in line for line in wrong), f"not all is ok: {wrong}")


def starts_a_daemon(stack):
    """Several `lithos run' at once and no daemon: one is started, it is nobody's child, all are admitted."""
    children = [stack.run(5, f"early{i}", "sh", "-c", "cat /proc/$$/task/$$/children; exit 7") for i in range(5)]
    for i, child in enumerate(children):
        check(child.wait(60) == 7, f"early{i}: {child.returncode}: {stack.log(f'early{i}')}")
        told = [line for line in stack.log(f"early{i}").splitlines() if not line.startswith("lithos")]
        check(len(told) == 1 and told[0].strip().isdigit(), f"children beside cat: {told}")
    document = stack.status()
    check(document["pid"] not in [c.pid for c in children] and document["virtual"], document)
    printed = json.loads(stack.lithos("status", "--json").stdout)
    check(printed.keys() == document.keys() and printed["pid"] == document["pid"], printed)
    expect(stack.lithos("doctor", timeout=90), 0, f"pid {document['pid']}")
    expect(stack.lithos("stop"), 0)
    wait_for("the daemon is gone", lambda: not os.path.exists(f"/proc/{document['pid']}"), 20)
    expect(stack.lithos("status"), 1, "no lithosd runs")


def becomes_the_program(stack):
    """Exit codes, signals, environment, process id."""
    def sh(script, *options, env=None):
        return stack.lithos("run", "--quota", "4", *options, "--", "sh", "-c", script, env=env)

    for code in (0, 1, 42, 255):
        expect(sh(f"exit {code}"), code)
    check(sh("kill -9 $$").returncode == -9, "SIGKILL of the program is not its end")
    expect(stack.lithos("run", "--quota", "4", "--", "/etc/passwd"), 126, "/etc/passwd")
    expect(stack.lithos("run", "--quota", "4", "--", "no-such-program"), 127, "no-such-program")
    expect(stack.lithos("run", "--quota", "4", "--", "/etc/passwd/x"), 126, "Not a directory")
    child = stack.run(4, "me", "sh", "-c", "echo $$; exec sleep 100")
    wait_for("it runs", lambda: stack.log("me").strip().isdigit(), 20)
    check(int(stack.log("me")) == child.pid, "the program is another process than lithos run was")
    check(stack.tenants()["me"]["pids"][0]["pid"] == child.pid, stack.tenants()["me"])
    child.send_signal(signal.SIGINT)
    check(child.wait(10) == -signal.SIGINT, f"SIGINT came back as {child.returncode}")

    env = dict(stack.env, LD_PRELOAD="/lib/x86_64-linux-gnu/libm.so.6", CUDA_INJECTION64_PATH="/theirs.so")
    told = dict(line.split("=", 1) for line in sh("env", env=env).stdout.splitlines() if "=" in line)
    preload = told["LD_PRELOAD"].split(":")
    check(preload[0].endswith("/liblithos.so") and preload[1:] == ["/lib/x86_64-linux-gnu/libm.so.6"], preload)
    check(told["CUDA_INJECTION64_PATH"] == "/theirs.so", told)
    check(told["CUDA_VISIBLE_DEVICES"] == stack.status()["gpus"][0]["uuid"], told)
    check(told["LITHOS_SOCKET"] == stack.env["LITHOS_SOCKET"] and ":" in told["LITHOS_TENANT"], told)
    check(told["LITHOS_GRANT"].startswith("GPU-") and "LITHOS_HOOK" not in told, told)
    check(told["CUDA_MPS_PIPE_DIRECTORY"] == stack.status()["mps"]["pipe_dir"], told)
    check(sh("env").stdout.count("CUDA_INJECTION64_PATH=") == 1, "programs that load the driver by path are not reached")
    told = sh("env", "--coarse").stdout
    check("CUDA_INJECTION64_PATH=" not in told, told)
    check("LITHOS_HOOK=off" in told and "LITHOS_GRANT=" not in told, told)
    for tool, options, said in (("/opt/ncu", (), "use --coarse"), ("/opt/ncu", ("--coarse",), "profiles no program that MPS serves"),
                                ("/opt/cuda-gdb", ("--coarse",), "the quota is not held"), ("ncu", (), "")):
        done = stack.lithos("run", "--quota", "4", *options, "--", "echo", tool)
        check(done.returncode == 0 and said in done.stderr and bool(said) == bool(done.stderr), f"{tool} {options}: {done}")
    check(re.search(r"^CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=[0-9.]+$", told, re.M), told)


def quotas_and_gpus(stack):
    """No --quota: the whole GPU when it is free, else a refusal that says how much is. GPUs by number, UUID, variable."""
    done = stack.lithos("run", "--verbose", "--", "true")
    expect(done, 0, "66 of 66 TPCs", "mask")
    holder = stack.run(40, "holder", "sleep", "100")
    wait_for("holder is admitted", lambda: "holder" in stack.tenants(), 10)
    expect(stack.lithos("run", "--", "true"), 125, "--quota", "26 of the 66 TPCs")
    expect(stack.lithos("run", "--quota", "50%", "--", "true"), 125, "holder", "40")
    uuid = stack.status()["gpus"][0]["uuid"]
    for gpu in ("0", uuid, uuid[:10], "all"):
        expect(stack.lithos("run", "--quota", "5", "--gpu", gpu, "--", "true"), 0)
    for gpu in ("1", "GPU-ffff", "0,0", "x"):
        expect(stack.lithos("run", "--quota", "5", "--gpu", gpu, "--", "true"), 125, "--gpu " + gpu)
    for value, code in (("0", 0), (uuid, 0), ("7", 125), ("", 125), ("0,9", 0)):
        done = stack.lithos("run", "--quota", "5", "--", "true", env=dict(stack.env, CUDA_VISIBLE_DEVICES=value))
        check(done.returncode == code, f"CUDA_VISIBLE_DEVICES={value}: {done.returncode} {done.stderr}")
    holder.terminate()
    holder.wait(10)


def row(stack, name):
    """A tenant's line of `lithos status', by column heading."""
    lines = stack.lithos("status").stdout.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith("TENANT")), len(lines))
    for line in lines[head + 1:]:
        if line.split() and line.split()[0] == name:
            return dict(zip(lines[head].split(), line.split()))
    return None


def table_and_set(stack):
    child = stack.run("50%", "worker", stack.sample("lithos-burn"), *BURN)
    wait_for("it launches", lambda: (row(stack, "worker") or {}).get("LAUNCHES", "0") != "0", 30)
    before = row(stack, "worker")
    check(before["TPCS"] == "33" and before["QUOTA"] == "50%" and before["MODE"] == "mask", before)
    check(before["PIDS"] == str(child.pid) and before["GPU"] == "0" and before["ESCAPED"] == "0", before)
    check(len(bits(before["BITS"])) == 33, before)
    expect(stack.lithos("set", "worker", "10"), 0)
    after = row(stack, "worker")
    check(after["TPCS"] == "10" and bits(after["BITS"]) < bits(before["BITS"]), after)
    expect(stack.lithos("set", "worker", "70%"), 0)
    grown = row(stack, "worker")
    check(bits(after["BITS"]) < bits(grown["BITS"]) and grown["TPCS"] == "46", grown)
    expect(stack.lithos("set", "worker", "0"), 1, "quota", "best-effort")
    for bad in ("0%", "101%", "lots", ""):
        expect(stack.lithos("set", "worker", bad), 2, "quota")
    expect(stack.lithos("set", "worker", "100"), 1, "66")
    expect(stack.lithos("set", "nobody", "5"), 1, "nobody")
    expect(stack.lithos("set", "worker"), 2)
    count = int(row(stack, "worker")["LAUNCHES"])
    wait_for("it goes on", lambda: int(row(stack, "worker")["LAUNCHES"]) > count, 20)
    child.terminate()
    check(child.wait(30) == 0, f"lithos-burn on SIGTERM: {child.returncode}")
    check("kernels/s" in stack.log("worker"), f"figures on SIGTERM: {stack.log('worker')}")


def samples(stack):
    """Right results and honest figures, with and without LithOS."""
    burn, serve = stack.sample("lithos-burn"), stack.sample("lithos-serve")
    common = ("--json", "--time-scale", "10", "--warmup", "0.01")
    alone = json.loads(run(burn, "--check", "--seconds", "0.2", *common, env=stack.env).stdout)
    check(alone["check"] and alone["sms_used"] == 132 and alone["kernels"] > 2, alone)
    half = json.loads(stack.lithos("run", "--quota", "33", "--", burn, "--check", "--seconds", "0.2", *common).stdout)
    check(half["check"] and half["sms_used"] == 66, half)
    check(0.4 < half["kernels_per_s"] / alone["kernels_per_s"] < 0.6, f"half the card: {half} {alone}")
    quick = ("--period-us", "1000", "--seconds", "0.1", *common)
    served = json.loads(run(serve, "--check", "--slo-us", "1", *quick, env=stack.env).stdout)
    check(served["check"] and served["sms_used"] == 132, served)
    check(95 <= served["requests"] + served["unserved"] <= 101 and served["slo_misses"] == served["requests"] + served["unserved"], served)
    check(60 < served["p50_us"] <= served["p99_us"] <= served["max_us"], served)
    same = [json.loads(run(serve, "--poisson", "--seed", "5", *quick, env=stack.env).stdout) for _ in range(2)]
    check(same[0]["requests"] + same[0]["unserved"] == same[1]["requests"] + same[1]["unserved"], same)
    # more work than the card can do: the wait counts, what was not served is told
    over = json.loads(run(serve, "--kernels", "30", *quick, env=stack.env).stdout)
    check(over["unserved"] > 20 and over["p99_us"] > 10000, over)
    for bad in (("--depth", "0"), ("--seconds", "x"), ("--kind", "odd"), ("extra",), ("--device", "9")):
        done = run(burn, *bad, env=stack.env)
        check(done.returncode == 2 and "lithos-burn" in done.stderr, f"{bad}: {done}")
    env = dict(stack.env, LD_LIBRARY_PATH="/nowhere")
    expect(run(burn, env=env), 1, "no CUDA driver")


def main():
    for part in (without_gpu, no_daemon_program):
        print(part.__name__, flush=True)
        part()
    with Stack(scale=10) as stack:
        for part in (doctor, starts_a_daemon):
            print(part.__name__, flush=True)
            part(stack)
        stack.start_daemon()
        for part in (becomes_the_program, quotas_and_gpus, table_and_set, samples):
            print(part.__name__, flush=True)
            part(stack)


if __name__ == "__main__":
    sys.exit(main())
