"""What a probe of a virtual card has found, kept for tests that come later in the same build, each of which would probe for seconds."""
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile


class Probed:
    """Of one virtual card, said by whatever makes a difference to what is found. It is the same each time, as long as neither the card
    nor the probe is built anew."""

    def __init__(self, build, *card):
        build = pathlib.Path(build)
        built = [build / f for f in ("libexec/lithos/lithos-probe", "libexec/lithos/lithos-vgpud", "lib/lithos/vgpu/libcuda.so.1")]
        key = hashlib.sha256(repr([*card, [f.stat().st_mtime_ns for f in built]]).encode()).hexdigest()[:16]
        self.path = build / "tests/probed" / key

    def copy(self, cache):
        """Makes the folder `cache` of it, if there is something."""
        if self.path.exists():
            shutil.copytree(self.path, cache)

    def keep(self, cache):
        """What lies in the folder `cache`, if that is all that can be found out, and nothing failed: that may be a moment's, not the card's."""
        files = list(pathlib.Path(cache).glob("*.json"))
        found = [json.loads(f.read_text()) for f in files]
        if self.path.exists() or not files or not all(f.get("stamps") and f.get("atoms") for f in found):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        copy = tempfile.mkdtemp(dir=self.path.parent)
        for f in files:
            shutil.copy(f, copy)
        try:
            os.rename(copy, self.path)
        except OSError:  # another test was first
            shutil.rmtree(copy)


@contextlib.contextmanager
def bench_environment(build, scale, *card):
    """Of a benchmark with --virtual, in a build: it finds what those before it have found of such a card, and what it finds is kept."""
    probed = Probed(build, "bench", float(scale), *card)
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder, "cache")
        probed.copy(cache)
        yield dict(os.environ, LITHOS_CACHE_DIR=str(cache))
        probed.keep(cache)
