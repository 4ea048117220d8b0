"""A reader of traces written from docs/trace.md alone, to hold that page and src/trace to each other.
trace_reader.py FILE: prints, as JSON, by kind, the sum modulo 2^64 of each field of all events."""
import collections, json, struct, sys, zlib

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
}
KINDS = {17: "gpu", 18: "tenant", 19: "tenant_end", 20: "grant", 21: "sync", 22: "drop", 23: "clock"}


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


def number(value):
    return zlib.crc32(value) if isinstance(value, bytes) else (value & M) + (value >> 64)


sums = collections.defaultdict(collections.Counter)
for kind, e in events(open(sys.argv[1], "rb").read()):
    sums[kind]["events"] += 1
    for name, value in e.items():
        sums[kind][name] = (sums[kind][name] + number(value)) & M
json.dump({kind: {name: str(value) for name, value in of.items()} for kind, of in sums.items()}, sys.stdout)
