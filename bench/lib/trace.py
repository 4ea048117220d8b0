"""Reads traces of `lithos trace record`, without LithOS. Written from docs/trace.md alone, so that this reader and that of
src/trace hold each other and the page to what is said there (tests/unit/test_trace_format.c)."""
import struct
import zlib

M = (1 << 64) - 1


class Payload:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, n):
        assert self.at + n <= len(self.data)
        self.at += n
        return self.data[self.at - n:self.at]

    def u(self):
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def d(self, before):
        z = self.u()
        return (before + (z >> 1 if z % 2 == 0 else -(z >> 1) - 1)) & M


FIELDS = {
    17: [("index", "u"), ("uuid", 16), ("name", "string"), ("valid", "set"), ("sms", "u"), ("stride", "u"), ("gpcs", "u")],
    18: [("id", "u"), ("pid", "u"), ("name", "string")],
    19: [("id", "u")],
    20: [("tenant", "u"), ("gpu", "u"), ("tpcs", "set")],
    21: [("tenant", "u"), ("stream", "d"), ("pid", "u"), ("gpu", "u"), ("sequence", "u")],
    22: [("tenant", "u"), ("pid", "u"), ("gpu", "u"), ("reason", "u"), ("count", "u")],
    23: [("gpu", "u"), ("gpu_ns", "u"), ("offset", "d"), ("drift", "d"), ("bound", "u")],
    24: [("tenant", "u"), ("stream", "u"), ("pid", "u"), ("gpu", "u"), ("sequence", "u"), ("tpcs", "set"), ("took", "u")],
}
KINDS = {17: "gpu", 18: "tenant", 19: "tenant_end", 20: "grant", 21: "sync", 22: "drop", 23: "clock", 24: "atom"}


def blocks(data):
    start_ns, _, zero, crc = struct.unpack_from("<QQII", data, 16)
    assert data[:8] == b"\x89LTRACE\n" and struct.unpack_from("<HHI", data, 8) == (1, 40, 0)
    assert zero == 0 and crc == zlib.crc32(data[:36])
    at, number = 40, 0
    while at < len(data):
        magic, flags, stored, size, events, n, crc = struct.unpack_from("<4sIIIIII", data, at)
        body = data[at + 28:at + 28 + stored]
        assert magic == b"LTBK" and n == number and crc == zlib.crc32(body, zlib.crc32(data[at:at + 24]))
        payload = zlib.decompress(body) if flags & 1 else body
        assert len(payload) == size
        yield start_ns, bool(flags & 2), events, Payload(payload)
        at, number = at + 28 + stored, number + 1


def events(data):
    for start_ns, anew, count, p in blocks(data):
        if anew:
            strings, shapes, lanes, sets = [], [], [], []
            time, lane = start_ns, None
        while p.at < len(p.data):
            b = p.bytes(1)[0]
            if b & 1:
                lane = lanes[p.u()] if b & 2 else lane
                shape = shapes[p.u()] if b & 4 else lane["shape"]["follower"]
                e = dict(zip(("tenant", "stream", "pid", "gpu"), lane["key"])) | shape["fields"]
                e["sequence"] = p.d(lane["sequence"] + 1) if b & 8 else (lane["sequence"] + 1) & M
                e["tpcs"] = sets[p.u()] if b & 16 else lane["tpcs"]
                e["flags"] = p.u() if b & 32 else lane["flags"]
                e["time"] = p.d(lane["submit"])
                expected = max(e["time"], lane["end"])
                e["start"] = p.d(expected) if b & 64 else expected
                took = p.d(shape["took"])
                e["end"] = (e["start"] + took) & M
                e["predicted"] = p.d(shape["predicted"]) if b & 128 else 0
                if lane["shape"]:
                    lane["shape"]["follower"] = shape
                lane.update(shape=shape, tpcs=e["tpcs"], flags=e["flags"], sequence=e["sequence"], submit=e["time"], end=e["end"])
                shape.update(took=took, predicted=e["predicted"] or shape["predicted"])
                yield "kernel", e
                count -= 1
                continue
            kind, body = b >> 1, Payload(p.bytes(p.u()))
            if kind == 1:
                strings.append(body.data)
            elif kind == 2:
                f = [body.u() for _ in range(10)]
                names = "gx gy gz bx by bz cluster shared registers".split()
                shapes.append(dict(fields=dict(zip(names, f[1:]), function=strings[f[0]]), took=0, predicted=0, follower=None))
            elif kind == 3:
                lanes.append(dict(key=[body.u() for _ in range(4)], shape=None, tpcs=None, flags=0, sequence=0, submit=start_ns, end=0))
            elif kind == 4:
                low, high = struct.unpack("<QQ", body.data)
                sets.append(low | high << 64)
            elif kind in FIELDS:
                time = body.d(time)
                e = {"time": time}
                for name, how in FIELDS[kind]:
                    if how == "u":
                        e[name] = body.u()
                    elif how == "d":
                        e[name] = body.d(0)
                    elif how == "string":
                        e[name] = strings[body.u()]
                    elif how == "set":
                        e[name] = sets[body.u()]
                    else:
                        e[name] = body.bytes(how)
                yield KINDS[kind], e
                count -= 1
        assert count == 0


# ---- for benchmarks ----

GRAPH_NODE, DRIVER, ESTIMATE, CLAMPED = 1, 2, 4, 8
DROPS = {1: "record_ring", 2: "stamp_ring", 3: "slot_reused", 4: "no_semaphore", 5: "tenant_ended", 6: "graph_replay", 7: "writer",
         8: "invalid", 9: "stamps_off"}


def load(path):
    """(kernels in the order of their process's launches, what is missing by reason) of a trace of one tenant. ValueError: it
    is damaged, or ends within a block."""
    kernels, drops = [], {}
    with open(path, "rb") as f:
        data = f.read()
    try:
        for kind, e in events(data):
            if kind == "kernel":
                e["function"] = e["function"].decode(errors="replace")
                kernels.append(e)
            elif kind == "drop":
                reason = DROPS.get(e["reason"], str(e["reason"]))
                drops[reason] = drops.get(reason, 0) + e["count"]
    except (AssertionError, IndexError, TypeError, struct.error, zlib.error) as e:
        raise ValueError(f"{path}: not a whole trace: {e!r}") from e
    kernels.sort(key=lambda e: (e["pid"], e["sequence"]))
    return kernels, drops


def pack(data, bytes_max, level=9):
    """A trace that says the same in fewer bytes: compressed anew, cut behind the last block that bytes_max has room for. (the
    trace, its blocks, of how many)"""
    out, at, blocks, kept = bytearray(data[:40]), 40, 0, 0
    while at < len(data):
        magic, flags, stored, size, events_, number, _ = struct.unpack_from("<4sIIIIII", data, at)
        body = data[at + 28:at + 28 + stored]
        if len(body) < stored or magic != b"LTBK":
            raise ValueError("not a whole trace")
        at, blocks = at + 28 + stored, blocks + 1
        packed = zlib.compress(zlib.decompress(body) if flags & 1 else body, level)
        if len(packed) < len(body):
            flags, body = flags | 1, packed
        if kept < blocks - 1 or len(out) + 28 + len(body) > bytes_max:
            continue
        head = struct.pack("<4sIIIII", magic, flags, len(body), size, events_, number)
        out += head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
        kept += 1
    return bytes(out), kept, blocks


def keep(raw, path, bytes_max):
    """Packs the trace in the file raw into path and removes raw. What an index says of it; ValueError: no kernel is in it."""
    packed, blocks, of = pack(raw.read_bytes(), bytes_max)
    raw.unlink()
    path.write_bytes(packed)
    kernels, drops = load(path)
    if not kernels:
        raise ValueError(f"no kernel is in the trace; missing: {drops}")
    span_s = (max(k["end"] for k in kernels) - min(k["start"] for k in kernels)) / 1e9
    return {"file": path.name, "bytes": len(packed), "kernels": len(kernels), "seconds": round(span_s, 3), "blocks": blocks,
            "blocks_recorded": of, "dropped": drops}
