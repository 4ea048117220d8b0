"""The servers a case runs beside: an MPS of its own, or lithosd with its own socket. Never one of the machine's."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from lib.proc import Child, Failed, document, end_all, end_on_sigterm, log

TICKS_S = os.sysconf("SC_CLK_TCK")
# What a case must not inherit from the person who runs it.
OURS = ("CUDA_MPS_", "LITHOS_TENANT", "LITHOS_SOCKET", "LITHOS_GRANT", "CUDA_INJECTION64_PATH")
SLICED_S = 20  # for a tenant's channel groups to have short turns


def clean_env():
    env = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    # A pipe folder with no server in it: a machine-wide MPS, if there is one, is not joined unasked.
    env["CUDA_MPS_PIPE_DIRECTORY"] = "/nonexistent"
    return env


class Scratch:
    """A short-named temporary folder (socket paths are limited to 107 bytes)."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp"))

    def folder(self, name):
        (self.path / name).mkdir(parents=True, exist_ok=True)
        return self.path / name

    def __enter__(self):
        end_on_sigterm()
        return self

    def __exit__(self, *_):
        end_all()  # what was being started when the end came
        kill_holders(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


class Mps:
    """nvidia-cuda-mps-control with folders of its own. env: what a client needs."""

    def __init__(self, scratch, name="mps"):
        self.pipe, self.logs = scratch.folder(f"{name}/p"), scratch.folder(f"{name}/l")
        self.env = dict(clean_env(), CUDA_MPS_PIPE_DIRECTORY=str(self.pipe), CUDA_MPS_LOG_DIRECTORY=str(self.logs))

    def control(self, text, timeout_s=20):
        return subprocess.run(["nvidia-cuda-mps-control"], input=text + "\n", env=self.env, capture_output=True,
                              text=True, timeout=timeout_s)

    def __enter__(self):
        try:
            run = subprocess.run(["nvidia-cuda-mps-control", "-d"], env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Failed(f"MPS could not be started: {e}") from e
        if run.returncode:
            raise Failed(f"nvidia-cuda-mps-control -d: exit code {run.returncode}, logs in {self.logs}")
        return self

    def __exit__(self, *_):
        try:
            self.control("quit -t 5")
        except (OSError, subprocess.TimeoutExpired):
            log("MPS did not quit in time")
        kill_holders(self.pipe)


def kill_holders(folder):
    """Ends MPS processes that this run started: those that still name `folder`, or one below it, in their environment."""
    needle = f"CUDA_MPS_PIPE_DIRECTORY={folder}".encode()
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            named = any(v == needle or v.startswith(needle + b"/") for v in (entry / "environ").read_bytes().split(b"\0"))
            if named and b"mps" in (entry / "comm").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def as_owner(told):
    """Of what Lithosd.explain says: what an owner was taken for, and what it met when it came back to its TPCs."""
    owner = told["owner"] or {}
    return {k: owner.get(k) for k in ("returns", "hits", "wait_us", "slack_us", "need_us", "even_us")}


def as_borrower(told):
    """Of what Lithosd.explain says: what was lent to a tenant, why no more, and what its queue waited for; seconds of the last one."""
    return {"lent_tpc_s": told["lent_tpc_s"], **{key: {why: round(s, 4) for why, s in told[key].items() if s} for key in ("why_s", "waited_s")}}


class Lithosd:
    """lithosd in the foreground with its own socket. env: what `lithos` needs to find it."""

    def __init__(self, place, scratch, name="ld", args=(), env=None):
        self.place, self.args = place, list(args)
        self.folder = scratch.folder(name)
        self.env = dict(env or clean_env(), LITHOS_SOCKET=str(self.folder / "d.sock"))
        if env is None:
            self.env.pop("CUDA_MPS_PIPE_DIRECTORY", None)
        self.env.setdefault("LITHOS_CACHE_DIR", str(scratch.folder("cache")))
        self.child = None

    def __enter__(self):
        log_path = self.folder / "lithosd.log"
        self.child = Child([self.place.program("lithosd"), *self.args], self.env, log_path, server=True)
        deadline = time.monotonic() + 60
        last = "no answer"
        while time.monotonic() < deadline:
            if self.child.popen.poll() is not None:
                raise Failed(f"lithosd ended at once with {self.child.popen.returncode}: {self.child.why()}")
            try:
                last = self.status()
                if last.get("gpus"):
                    return self
            except (Failed, OSError) as e:
                last = e
            time.sleep(0.1)
        why = self.child.why()
        self.__exit__()
        raise Failed(f"lithosd was not ready in 60 s ({last}): {why}")

    def status(self, timeout_s=20):
        return document([self.place.program("lithos"), "status", "--json"], self.env, timeout_s)

    def cpu_s(self):
        """Processor time that it has had."""
        fields = pathlib.Path(f"/proc/{self.child.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def tenant(self, name):
        """What the status document says of a living tenant."""
        for t in self.status().get("tenants") or []:
            if t.get("name") == name:
                return t
        raise Failed(f"lithos status does not know the tenant {name}")

    def explain(self, name, timeout_s=20):
        """What `lithos explain` says of a living tenant on its first GPU: of the second before."""
        return document([self.place.program("lithos"), "explain", "--json", name], self.env, timeout_s)["gpus"][0]

    def record(self, path, tenant=None):
        """With it: a trace of the tenant's kernels, or of everybody's, in path, from its begin to its end."""
        return Recording(self, path, tenant)

    def set(self, name, *what):
        """Changes a living tenant: its quota, or options of `lithos set`."""
        run = subprocess.run([self.place.program("lithos"), "set", name, *map(str, what)], env=self.env, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=20)
        if run.returncode:
            raise Failed(f"lithos set {name} {' '.join(map(str, what))}: exit code {run.returncode}. {run.stderr.strip()[-500:]}")

    def set_quota(self, name, quota):
        """Changes a living tenant's quota."""
        self.set(name, quota)

    def wait_for_slices(self, name):
        """Under --share preempt: until a living best-effort tenant's channel groups have short turns, what its status says of them.
        Some are set again in the seconds that follow."""
        deadline = time.monotonic() + SLICED_S
        while True:
            s = self.tenant(name)["slice"]
            if s["groups"] and s["set"] == s["groups"]:
                return s
            if time.monotonic() > deadline:
                raise Failed(f"{name}: {s['set']} of {s['groups']} channel groups have short turns after {SLICED_S} s, "
                             f"{s['refused']} refused: {s['why']}")
            time.sleep(0.01)

    def run(self, quota, name, argv, extra=()):
        """The command that runs argv as a tenant."""
        return [self.place.program("lithos"), "run", "--quota", str(quota), "--name", name, *extra, "--", *argv]

    def __exit__(self, *_):
        if self.child:
            self.child.signal(signal.SIGTERM)
            if self.child.wait(15) is None:
                log("lithosd did not end on SIGTERM in 15 s, killed")
            self.child.kill()



class Recording:
    """`lithos trace record`, from when lithosd has begun until it has written all."""

    def __init__(self, lithosd, path, tenant):
        self.lithosd, self.path, self.tenant = lithosd, pathlib.Path(path), tenant
        self.child = None

    def __enter__(self):
        said = self.path.with_suffix(".said")
        argv = [self.lithosd.place.program("lithos"), "trace", "record", "-o", self.path]
        self.child = Child(argv + (["--tenant", self.tenant] if self.tenant else []), self.lithosd.env, said, server=True)
        deadline = time.monotonic() + 20
        while "recording into" not in said.read_text(errors="replace"):
            if self.child.popen.poll() is not None or time.monotonic() > deadline:
                self.child.kill()
                raise Failed(f"lithos trace record: does not begin. {self.child.why()}")
            time.sleep(0.01)
        return self

    def __exit__(self, kind, *_):
        self.child.signal(signal.SIGTERM)
        code = self.child.wait(60)
        self.child.kill()
        if code != 0 and kind is None:
            raise Failed(f"lithos trace record: exit code {code}. {self.child.why()}")
