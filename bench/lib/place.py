"""Where the programs are, and which code they were built from."""
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent  # bench/


class Place:
    """An installation of LithOS: the build tree, a prefix, or the unpacked tarball."""

    def __init__(self, prefix=None):
        candidates = [pathlib.Path(prefix)] if prefix else [HERE.parent, HERE.parents[2], HERE.parent / "build/dev"]
        for root in candidates:
            if (root / "bin/lithos").exists():
                self.root = root.resolve()
                break
        else:
            raise SystemExit("bench: no bin/lithos below " + " or ".join(map(str, candidates)) +
                             ": build it (make), or say --prefix")

    def program(self, name):
        """Path of a program by name, wherever the layout puts it."""
        for folder in ("bin", "libexec/lithos"):
            path = self.root / folder / name
            if path.exists():
                return str(path)
        raise SystemExit(f"bench: {name} is not in {self.root}: it was not built")

    def commit(self):
        """Full hash of the code: the file COMMIT that `make dist` writes, else the checkout this script lies in."""
        for folder in (self.root, HERE.parent):
            if (folder / "COMMIT").exists():
                return (folder / "COMMIT").read_text().strip()
        run = subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True)
        return run.stdout.strip() if run.returncode == 0 else "unknown"


def virtual():
    """True when the virtual GPU stands behind libcuda.so.1."""
    return bool(os.environ.get("LITHOS_VGPU_SOCKET"))
