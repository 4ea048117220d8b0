"""The whole stack without a GPU: lithos-vgpud, lithosd, lithos and the sample tenants in a folder of their own.

Everything runs under a time limit and is ended by close(), however a test ends. Standard library only.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from probed import Probed

CLASS = os.environ.get("LITHOS_TEST_CLASS")  # of all tenants of which a test says nothing: any of these tests may be run with best-effort ones
SLACK = float(os.environ.get("LITHOS_TEST_SLACK", "1"))  # sanitizer builds and busy machines are slower


MSG_MAGIC, MSG_STATUS, MSG_DOCUMENT = 0x4C544853, 5, 6  # proto/message.h
MSG_VERSION = int(re.search(r"LITHOS_MSG_VERSION (\d+)u", (pathlib.Path(__file__).resolve().parents[2] / "src/proto/message.h").read_text())[1])


class Failure(AssertionError):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


def wait_for(what, test, timeout_s, interval_s=0.01):
    """Poll test() until it is true; returns (its value, seconds taken)."""
    begin = time.monotonic()
    while True:
        value = test()
        took = time.monotonic() - begin
        if value:
            return value, took
        if took > timeout_s:
            raise Failure(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def bits(text):
    """ "0-3,9" -> {0, 1, 2, 3, 9} """
    out = set()
    for part in text.split(","):
        if part and part != "-":
            lo, _, hi = part.partition("-")
            out.update(range(int(lo), int(hi or lo) + 1))
    return out


def message(kind, version=MSG_VERSION, size=16):
    """The header of a message to lithosd."""
    return struct.pack("<IHHII", MSG_MAGIC, version, kind, size, 0)


def ask_status(path, timeout_s=30):
    """The status document, asked of lithosd itself: tests that wait for something ask very often, and a process each time
    would be most of what they do. Raises OSError when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(timeout_s)
        s.connect(path)
        s.send(message(MSG_STATUS))
        answer, fds, _, _ = socket.recv_fds(s, 4096, 1)
    if not fds:
        raise ConnectionResetError(f"lithosd answered {answer[:64]!r}")
    with open(fds[0], "rb") as f:
        kind, length = struct.unpack_from("<6xH8xQ", answer)
        check(kind == MSG_DOCUMENT, f"lithosd answered STATUS with a message of kind {kind}")
        return json.loads(os.pread(f.fileno(), length, 0))


def with_class(options):
    options = list(map(str, options))
    return options if "--class" in options or not CLASS else ["--class", CLASS, *options]


class Stack:
    def __init__(self, build=None, cards=("h200",), scale=20, mps="on", vgpud=(), probed=True):
        """probed: what a probe of such a card has found before in this build is there already."""
        self.build = pathlib.Path(build or os.environ["LITHOS_BUILD"]).resolve()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lithos-e2e-"))
        self.stats_path = self.dir / "stats.json"
        self.mps = mps
        self.children = []
        self.daemon = None
        libexec, lib = self.build / "libexec/lithos", self.build / "lib/lithos"
        self.env = dict(os.environ)
        for name in ("LITHOS_TENANT", "LITHOS_GRANT", "CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "LD_PRELOAD"):
            self.env.pop(name, None)
        self.env.update(
            LITHOS_VGPU_SOCKET=str(self.dir / "vgpu.sock"),
            LITHOS_SOCKET=str(self.dir / "lithosd.sock"),
            LITHOS_CACHE_DIR=str(self.dir / "cache"),
            LITHOS_LIBCUDA=str(lib / "vgpu/libcuda.so.1"),
            LD_LIBRARY_PATH=str(lib / "vgpu") + ":" + os.environ.get("LD_LIBRARY_PATH", ""),
            PATH=str(libexec / "vgpu") + ":" + os.environ["PATH"],
        )
        self.plain_env = dict(self.env)
        self.probed = Probed(self.build, mps, cards, scale, vgpud)
        if probed:
            self.probed.copy(self.dir / "cache")
        self.vgpud_log = open(self.dir / "vgpud.log", "wb")
        command = [libexec / "lithos-vgpud", "--socket", self.env["LITHOS_VGPU_SOCKET"], "--scale", str(scale)]
        command += ["--stats", self.stats_path, *vgpud]
        for card in cards:
            command += ["--card", card]
        try:
            self.vgpud = subprocess.Popen(
                list(map(str, command)), env=self.env, stdout=subprocess.PIPE, stderr=self.vgpud_log
            )
            line = self.vgpud.stdout.readline().decode()
            check(line.startswith("ready"), f"lithos-vgpud did not come up: {line!r}, {self.log('vgpud')}")
        except BaseException:
            self.close()
            raise

    def keep_probed(self):
        """For tests that come later, as the card is."""
        if self.env == self.plain_env:
            self.probed.keep(self.dir / "cache")

    def log(self, name):
        try:
            return (self.dir / f"{name}.log").read_text(errors="replace")[-3000:]
        except OSError:
            return ""

    def start_daemon(self, *options, wait=True, prefix=()):
        with open(self.dir / "lithosd.log", "ab") as log:
            command = [*prefix, self.build / "bin/lithosd", "--socket", self.env["LITHOS_SOCKET"], "--state-dir", self.dir / "state"]
            command += [f"--mps={self.mps}", *options]
            env = dict(self.env, LITHOS_LOG=os.environ.get("LITHOS_LOG", "info"))
            self.daemon = subprocess.Popen(list(map(str, command)), env=env, stdout=log, stderr=log)
        if wait:
            wait_for("lithosd answers", lambda: self.status(quiet=True) or self.daemon_died(),
                     30 * max(1, SLACK / 4))
            self.keep_probed()

    def daemon_died(self):
        check(self.daemon.poll() is None, f"lithosd ended with {self.daemon.returncode}: {self.log('lithosd')}")
        return False

    def kill_daemon(self, signal_number=signal.SIGKILL):
        self.daemon.send_signal(signal_number)
        self.daemon.wait(20)

    def lithos(self, *arguments, timeout=30, env=None):
        """Run `lithos ...` to its end: CompletedProcess with text output."""
        if arguments[0] == "run":
            arguments = ["run", *with_class(arguments[1:])]
        return subprocess.run(
            [str(self.build / "bin/lithos"), *map(str, arguments)],
            env=env or self.env, timeout=timeout, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )

    def status(self, quiet=False):
        """What `lithos status --json` would print; None when quiet and no daemon answers."""
        try:
            return ask_status(self.env["LITHOS_SOCKET"])
        except OSError as e:
            check(quiet, f"status: {e!r} {self.log('lithosd')}")
            return None

    def tenants(self):
        return {t["name"]: t for t in self.status()["tenants"]}

    def sample(self, name):
        return str(self.build / "libexec/lithos" / name)

    def run(self, quota, name, *command, options=(), env=None, stdin=subprocess.DEVNULL, stdout=None):
        """Start a tenant in the background; its output goes to NAME.log."""
        with open(self.dir / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(self.build / "bin/lithos"), "run", "--quota", str(quota), "--name", name, *with_class(options), "--", *command],
                env=env or self.env, stdout=stdout or log, stderr=log, stdin=stdin,
            )
        self.children.append(child)
        return child

    def card_stats(self):
        """What the card itself saw, by client (lithos-vgpud writes it on SIGUSR1)."""
        def inode():  # each report is a new file put in the old one's place; times are too coarse to tell
            return self.stats_path.stat().st_ino if self.stats_path.exists() else 0

        before = inode()
        self.vgpud.send_signal(signal.SIGUSR1)
        wait_for("lithos-vgpud writes its figures", lambda: inode() != before, 10)
        return json.loads(self.stats_path.read_text())

    def card_clients(self, card=0):
        """That record for one card: pid -> launches, hangs, blocks, tpcs (bits that its blocks ever ran on) and so on."""
        clients = {}
        for client in self.card_stats()["clients"]:
            clients[client["pid"]] = next(c for c in client["cards"] if c["card"] == card)
        return clients

    def close(self):
        for child in self.children + ([self.daemon] if self.daemon else []):
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + 10
        for child in self.children + ([self.daemon] if self.daemon else []):
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        vgpud = getattr(self, "vgpud", None)
        if vgpud:
            vgpud.terminate()
            try:
                vgpud.wait(10)
            except subprocess.TimeoutExpired:
                vgpud.kill()
            vgpud.stdout.close()
        self.vgpud_log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            for name in ("lithosd", "vgpud"):
                print(f"--- {name}.log\n{self.log(name)}", flush=True)
        self.close()
