"""Child processes that end: every wait has a bound, and what is left is killed with its whole group."""
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time


def log(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


class Failed(Exception):
    """A case that could not be measured; the message says why."""


living = set()  # children that were not killed yet
ending = False  # SIGTERM has come
unnamed = False  # the main thread, in which signals are handled, is starting a child that is not in `living` yet
asked = False  # SIGTERM has come meanwhile


def end_on_sigterm():
    """From now on SIGTERM ends this process as any other end does, with exit code 143: what is measured is killed, so that nobody waits
    for it any more, in whatever thread; the servers are stopped by those who started them."""
    def end(*_):
        global ending, asked
        if unnamed:
            asked = True
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ending = True
        for child in list(living):
            if not child.server:
                child.kill_group()
        sys.exit(143)
    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def naming():
    """While a child is started SIGTERM waits until it is known: it would live on else."""
    global unnamed
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unnamed = True
    try:
        yield
    finally:
        unnamed = False
        if asked:
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)


def end_all(timeout_s=15):
    """Of all children that still live: servers in order, the others at once."""
    for child in list(living):
        if child.server:
            child.signal(signal.SIGTERM)
            child.wait(timeout_s)
        child.kill()


class Child:
    """A process in a session of its own, with its output in pipes; standard error goes to a file when one is named. server: others
    need it to end in order."""

    def __init__(self, argv, env=None, stderr_path=None, server=False):
        self.argv, self.server = [str(a) for a in argv], server
        self.stderr_path = stderr_path
        self.buffer = b""
        stderr = open(stderr_path, "ab") if stderr_path else None
        try:
            with naming():
                self.popen = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                                              env=env, start_new_session=True)
                living.add(self)
        except OSError as e:
            raise Failed(f"{self.argv[0]}: {e.strerror}") from e
        finally:
            if stderr:
                stderr.close()
        if ending:
            self.kill()
            raise Failed(f"{self.argv[0]}: not run, SIGTERM has come")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def why(self):
        text = ""
        if self.stderr_path:
            with open(self.stderr_path, errors="replace") as f:
                text = f.read()[-2000:].strip()
        return text

    def line(self, timeout_s):
        """Next line of output without its end."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.popen.stdout], [], [], left)[0]:
                raise Failed(f"{self.argv[0]}: said nothing for {timeout_s:.0f} s. {self.why()}")
            data = os.read(self.popen.stdout.fileno(), 65536)
            if not data:
                code = self.wait(5)
                raise Failed(f"{self.argv[0]}: ended with {code}. {self.why()}")
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(b"\n")
        return text.decode(errors="replace")

    def line_if_any(self):
        """The next line if it has come already, else None."""
        if b"\n" not in self.buffer and not select.select([self.popen.stdout], [], [], 0)[0]:
            return None
        return self.line(5)

    def expect(self, word, timeout_s):
        got = self.line(timeout_s)
        if got != word:
            raise Failed(f"{self.argv[0]}: said '{got}' where '{word}' was due. {self.why()}")

    def tell(self, text):
        try:
            self.popen.stdin.write((text + "\n").encode())
            self.popen.stdin.flush()
        except OSError as e:
            raise Failed(f"{self.argv[0]}: does not listen: {e.strerror}. {self.why()}") from e

    def result(self, timeout_s):
        """Last line of its output as JSON, after it ended with exit code 0."""
        deadline = time.monotonic() + timeout_s
        text = self.buffer
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.popen.stdout], [], [], left)[0]:
                raise Failed(f"{self.argv[0]}: did not end within {timeout_s:.0f} s. {self.why()}")
            data = os.read(self.popen.stdout.fileno(), 65536)
            if not data:
                break
            text += data
        code = self.wait(max(1, deadline - time.monotonic()))
        lines = text.decode(errors="replace").strip().splitlines()
        if code != 0 or not lines:
            raise Failed(f"{' '.join(self.argv)}: exit code {code}. {self.why()}")
        try:
            return json.loads(lines[-1])
        except ValueError as e:
            raise Failed(f"{self.argv[0]}: not JSON: {lines[-1][:200]}") from e

    def wait(self, timeout_s):
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def kill_group(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill(self):
        """Ends the process and all it started, whatever state they are in."""
        self.kill_group()
        self.popen.wait()
        living.discard(self)
        for f in (self.popen.stdin, self.popen.stdout):
            try:
                f.close()
            except OSError:
                pass


def run_json(argv, env=None, timeout_s=60, stderr_path=None):
    """Runs a program that prints one JSON object."""
    with Child(argv, env, stderr_path) as child:
        child.popen.stdin.close()
        return child.result(timeout_s)


def document(argv, env=None, timeout_s=60):
    """Whole output of a program as one JSON document."""
    argv = [str(a) for a in argv]
    try:
        run = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
        if run.returncode:
            raise Failed(f"{' '.join(argv)}: exit code {run.returncode}. {run.stderr.decode(errors='replace')[-2000:]}")
        return json.loads(run.stdout)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{' '.join(argv)}: no answer in {timeout_s} s") from e
    except OSError as e:
        raise Failed(f"{argv[0]}: {e.strerror}") from e
    except ValueError as e:
        raise Failed(f"{' '.join(argv)}: not JSON: {run.stdout[:200]!r}") from e
