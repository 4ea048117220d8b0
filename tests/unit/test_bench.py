#!/usr/bin/env python3
"""What the benchmarks reckon with: names and launches of two observers laid side by side, traces packed, screens drawn."""
import json
import os
import pathlib
import random
import struct
import sys
import tempfile
import time
import unittest
import xml.dom.minidom
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from lib import colocate, cupti, host, match, plot, results, screen, trace, typical  # noqa: E402

MANGLED = "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEENS_6detail5ArrayIPcLi3EEEEEviT0_T1_"
DEMANGLED = ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3> >"
             "(int, at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3>)")


def launch(name, grid=(1, 1, 1), stream=7, start=0, end=10):
    return match.Launch(name, grid, (32, 1, 1), stream, start, end)


class Names(unittest.TestCase):
    def test_one_function_in_two_spellings(self):
        self.assertTrue(match.same_function(MANGLED, DEMANGLED))
        self.assertTrue(match.same_function("triton_poi_fused_add_0", "triton_poi_fused_add_0"))
        self.assertFalse(match.same_function(MANGLED, "void at::native::reduce_kernel<512, 1>(int)"))
        self.assertFalse(match.same_function("triton_poi_fused_add_0", "triton_poi_fused_add_01"))

    def test_own_name(self):
        for name, own in ((DEMANGLED, "vectorized_elementwise_kernel"), ("sm90_xmma_gemm", "sm90_xmma_gemm"),
                          ("void at::native::(anonymous namespace)::softmax_warp_forward<float>(float*)", "softmax_warp_forward")):
            self.assertEqual(match.base_name(name), own)


class Align(unittest.TestCase):
    def test_what_is_missing_on_either_side_costs_itself_alone(self):
        chance = random.Random(3)
        whole = [launch(f"k{chance.randrange(6)}", (chance.randrange(1, 9), 1, 1)) for _ in range(3000)]
        gone_a, gone_b = set(chance.sample(range(3000), 40)), set(chance.sample(range(3000), 40))
        a = [(i, x) for i, x in enumerate(whole) if i not in gone_a]
        b = [(i, x) for i, x in enumerate(whole) if i not in gone_b]
        pairs = match.align([x for _, x in a], [x for _, x in b])
        wrong = sum(a[i][0] != b[j][0] for i, j in pairs)
        self.assertGreater(len(pairs), 2850)
        # with six names in eight grids a neighbour is now and then as good as the right one
        self.assertLess(wrong, 30)
        self.assertEqual(pairs, sorted(pairs))

    def test_nothing_in_common(self):
        self.assertEqual(match.align([launch("a")] * 200, [launch("b")] * 200), [])
        self.assertEqual(match.align([], [launch("b")]), [])

    def test_streams_go_by_what_they_launch(self):
        a = [launch("x", stream=10), launch("y", (2, 1, 1), stream=11), launch("x", stream=10), launch("y", (2, 1, 1), stream=11)]
        b = [launch("y", (2, 1, 1), stream=1), launch("x", stream=2), launch("y", (2, 1, 1), stream=1), launch("x", stream=2)]
        pairs = match.match(a, b)
        self.assertEqual(len(pairs), 4)
        self.assertEqual({(x.stream, y.stream) for x, y in pairs}, {(10, 2), (11, 1)})


class Typical(unittest.TestCase):
    def test_medians_of_iterations_that_are_alike(self):
        launches, windows = [], []
        for i in range(5):
            begin = i * 1000
            windows.append((begin, begin + 900))
            launches += [launch("a", start=begin + 10, end=begin + 110 + i), launch("b", start=begin + 120, end=begin + 220 - i)]
        launches.insert(4, launch("extra", start=2500, end=2510))
        launches.append(launch("outside", start=4950, end=4960))
        match.set_gaps(launches)
        match.set_iterations(launches, windows, lambda x: x.start_ns)
        row, alike, of = match.typical(launches)
        self.assertEqual((alike, of), (4, 5))
        self.assertEqual([x.name for x in row], ["a", "b"])
        self.assertEqual([x.duration_ns for x in row], [102, 98])
        self.assertEqual(row[1].gap_ns, 8)

    def test_of_nothing(self):
        self.assertEqual(match.typical([]), ([], 0, 0))


class Over(unittest.TestCase):
    """500 requests a second for 10 s, of which those between some seconds take twice as long as they should."""

    def over(self, *slow, rate=500):
        ends = [i / rate for i in range(1, 10 * rate + 1)]
        return typical.over_for_s([(end, 2.0 if any(a <= end < b for a, b in slow) else 1.0) for end in ends], 1.1, 1, 0)

    def test_as_long_as_it_lasts(self):
        for slow in ((3, 4.5), (3, 3.1), (0, 1.5), (0, 10.1), (8, 10.1), (9.5, 10.1)):
            self.assertAlmostEqual(self.over(slow), min(slow[1], 10) - slow[0], delta=0.05, msg=slow)

    def test_the_longest(self):
        self.assertAlmostEqual(self.over((2, 2.3), (5, 5.6), (8, 8.1)), 0.6, delta=0.05)

    def test_one_in_a_hundred_may_be(self):
        self.assertEqual(self.over((2, 2.004), (5, 5.004)), 0)
        self.assertEqual(self.over(), 0)

    def test_few_requests(self):
        self.assertAlmostEqual(self.over((4, 7), rate=50), 3, delta=0.1)
        self.assertEqual(self.over((0, 10), rate=5), 0)  # there is no 99th percentile of 50

    def test_by_batch(self):
        run = {"start_ns": [0, 2e9, 4e9, 6e9, 8e9], "us": [100, 110, 1000, 120, 900], "batch": [1, 1, 8, 1, 8]}
        over = typical.Typical(run).over({"start_ns": [1e9, 2e9, 3e9], "us": [220, 950, 5], "batch": [1, 8, 4]})
        self.assertEqual(over, [(1.00022, 2.0), (2.00095, 1.0)])

    def test_short_turns(self):
        joined = typical.Joined()
        joined.add({"start_ns": [5e9, 5.1e9, 5.2e9], "us": [9, 1, 2], "batch": [1, 2, 4], "seconds": 0.5})
        joined.add({"start_ns": [8e9, 8.2e9], "us": [9, 3], "batch": [1, 8], "seconds": 0.25})
        self.assertEqual(joined.figures, {"us": [1, 2, 3], "batch": [2, 4, 8], "start_ns": [0.1e9, 0.2e9, 0.7e9]})
        self.assertEqual(joined.ns, 0.75e9)


class Cupti(unittest.TestCase):
    def test_order_and_times(self):
        def event(name, correlation, ts, cat="kernel"):
            return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": 2.5,
                    "args": {"stream": 7, "correlation": correlation, "grid": [1, 2, 3], "block": [4, 5, 6]}}
        document = {"baseTimeNanoseconds": 1700000000123456789,
                    "traceEvents": [event("late", 9, 20.001), event("early", 4, 30.0), event("memset", 1, 1, "gpu_memset"),
                                    {"ph": "f", "cat": "kernel"}]}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(document, f)
            f.flush()
            kernels = cupti.kernels(f.name)
        self.assertEqual([k.name for k in kernels], ["early", "late"])
        self.assertEqual(kernels[1].start_ns, 1700000000123456789 + 20001)
        self.assertEqual((kernels[1].duration_ns, kernels[1].grid), (2500, (1, 2, 3)))


class Pack(unittest.TestCase):
    def blocks(self, count):
        """A trace of kernels in `count` blocks, built by hand from docs/trace.md (its example, again and again)."""
        head = b"\x89LTRACE\n" + struct.pack("<HHIQQI", 1, 40, 0, 0, 0, 0)
        out = head + struct.pack("<I", zlib.crc32(head))
        first = bytes.fromhex("02016b" "040a00010101200101000010" "060401020300" "0810") + b"\1" + bytes(15) + \
            bytes.fromhex("17000000" "0206")
        for n in range(count):
            payload = first if n == 0 else b"\x05\x00\x02\x00" * 400
            block = struct.pack("<4sIIIIII", b"LTBK", 2 * (n == 0), len(payload), len(payload), 1 if n == 0 else 400, n, 0)[:24]
            out += block + struct.pack("<I", zlib.crc32(payload, zlib.crc32(block))) + payload
        return out

    def test_says_the_same_in_less(self):
        data = self.blocks(5)
        before = list(trace.events(data))
        self.assertEqual(len(before), 1601)
        packed, kept, of = trace.pack(data, len(data))
        self.assertEqual((kept, of), (5, 5))
        self.assertLess(len(packed), len(data) / 2)
        self.assertEqual(list(trace.events(packed)), before)

    def test_cut_where_it_is_too_large(self):
        data = self.blocks(50)
        packed, kept, of = trace.pack(data, 300)
        self.assertLessEqual(len(packed), 300)
        self.assertTrue(0 < kept < of == 50)
        self.assertEqual(list(trace.events(packed)), list(trace.events(data))[:1 + 400 * (kept - 1)])

    def test_damage_is_told(self):
        data = self.blocks(3)
        with self.assertRaises(ValueError):
            trace.pack(data[:-5], 1000000)
        with tempfile.NamedTemporaryFile() as f:
            f.write(data[:-5] + b"?" + data[-4:])
            f.flush()
            with self.assertRaises(ValueError):
                trace.load(f.name)


class Terminal(unittest.TestCase):
    def test_moves_and_clears(self):
        s = screen.Screen(4, 10)
        s.feed("old text\r\nmore\x1b[1;1H\x1b[K\x1b[1mnew\x1b[0;10m\x1b[3;5Hx\x1b")
        s.feed("[Dy\x1b[2;3H\x1b[J")  # a sequence in two pieces
        self.assertEqual(s.text(), "new\nmo\n")
        s.feed("\x1b[4;1Ha\nb\x1b7\x1b[1;1H\x1b8c")
        self.assertEqual(s.text(), "mo\n\na\n bc\n")

    def test_a_program_in_it(self):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "p.sh")
            script.write_text("stty size; printf 'a\\033[5;3Hb'; read -r line; printf '%s' \"$line\"")
            shown = screen.capture(["sh", str(script)], dict(os.environ), [(1, b"q\n")], rows=10, columns=33)
        self.assertEqual(shown.split("\n"), ["10 33", "a", "", "", "  b", ""])


class Pictures(unittest.TestCase):
    def test_names_that_are_cut_off(self):
        for mangled, name in ((MANGLED, "vectorized_elementwise_kernel of CUDAFunctor_add"), (MANGLED[:60], "vectorized_elementwise_kernel"),
                              ("_ZN7cutlass7Kernel2I50cutlass_80_tensorop_s1688gemm_64x64_32x6_tn_align4EEvNT_6P",
                               "cutlass_80_tensorop_s1688gemm_64x64_32x6_tn_align4"), ("sm90_xmma_gemm", "sm90_xmma_gemm")):
            self.assertEqual(plot.own_name(mangled), name)

    def test_scales(self):
        self.assertEqual([plot.Log(1, 64)(v) for v in (0.5, 1, 8, 64, 100)], [0, 0, 0.5, 1, 1])
        self.assertEqual([plot.Linear(0, 50)(v) for v in (-1, 10, 60)], [0, 0.2, 1])

    def test_kernels_that_scale_and_one_that_does_not(self):
        def kernel(name, r2, us):
            return {"case": f"toy: {name} 4x1x1", "rep": 1, "share_percent": 25.0, "r2": r2, "us": us}
        cases = [kernel("good", 0.99, {"1": 640.0, "8": 80.0, "64": 10.0}), kernel("bad", 0.2, {"1": 5.0, "64": 5.0}),
                 {"case": "toy", "rep": 1, "r2_by_time": 0.595}, {"case": "broken", "rep": 1, "error": "no GPU"}]
        drawn = xml.dom.minidom.parseString(plot.scaling({"card": "a & b", "cases": cases}))
        words = [t.firstChild.data for t in drawn.getElementsByTagName("text")]
        self.assertIn("toy: bad 4x1x1, 25.0 %, 0.20", words)
        self.assertFalse([w for w in words if "good" in w or "broken" in w], words)
        lines = {p.getAttribute("stroke"): p.getAttribute("d") for p in drawn.getElementsByTagName("path")}
        points = {colour: [tuple(map(float, p.split())) for p in lines[colour][1:].split("L")] for colour in (plot.BLUE, plot.ORANGE, "#333")}
        self.assertEqual(points[plot.ORANGE][0][1], points[plot.ORANGE][1][1])  # it takes as long on one TPC
        self.assertEqual([points[plot.BLUE][i] for i in (0, 2)], points["#333"])  # in proportion to 1/t


    def test_a_neighbour_over_its_owner(self):
        def case(name, rep, p99=None, rate=None):
            return {"case": name, "rep": rep, **({"p99_us": p99} if p99 else {}), **({"be_kernels_per_s": rate} if rate else {})}
        cases = [case("hp alone, random", 1, 100), case("be alone, long blocks", 1, rate=60), case("lithos, advised, long blocks, random", 1, 120, 45),
                 case("lithos, advised, long blocks, random", 2, 140, 55), case("mps, long blocks, random", 1, 99000, 60),
                 {"case": "lithos, long blocks, random", "rep": 1, "error": "no GPU"}]
        self.assertEqual(plot.lending_points(cases), {"random": [("lithos, advised", "long blocks", 1.3, 100 * 50 / 60), ("mps", "long blocks", 990.0, 100.0)]})
        drawn = xml.dom.minidom.parseString(plot.lending({"card": "a & b", "cases": cases}))
        dots = {c.getAttribute("fill"): c for c in drawn.getElementsByTagName("circle") if c.nextSibling.nextSibling.firstChild.data == "1"}
        self.assertEqual(set(dots), {plot.GREEN, plot.GREY})
        shaded = drawn.getElementsByTagName("rect")[1]  # the first is the ground
        right, foot = (float(shaded.getAttribute(a)) + float(shaded.getAttribute(b)) for a, b in (("x", "width"), ("y", "height")))
        self.assertAlmostEqual(float(dots[plot.GREEN].getAttribute("cx")), right, delta=0.2)  # 1.3 times, and more than 75 %
        self.assertLess(float(dots[plot.GREEN].getAttribute("cy")), foot)
        self.assertGreater(float(dots[plot.GREY].getAttribute("cx")), right)


class Host(unittest.TestCase):
    def test_how_often_it_is_slow(self):
        fast_ms, slow = host.slow_part([1.0] * 60 + [1.2] * 20 + [1.31] * 5 + [2.0] * 15)
        self.assertEqual((fast_ms, slow), (1.0, 0.2))

    def test_loops(self):
        begin = time.monotonic()
        fast_ms, slow = host.measure(0.1)
        self.assertTrue(0 < fast_ms < 100 and 0 <= slow <= 0.9, (fast_ms, slow))
        self.assertGreaterEqual(time.monotonic() - begin, 0.1)

    def test_no_run_where_it_is_not_quiet(self):
        class Options:
            awake, quiet_host = False, 0.1
        measure, host.measure = host.measure, lambda _seconds: (1.0, 0.11)
        try:
            with self.assertRaisesRegex(SystemExit, "11.0 % of its runs"):
                colocate.quiet_host(Options, None)
            Options.quiet_host = 0.11
            self.assertIn("11.0 %", colocate.quiet_host(Options, None))
            Options.quiet_host = None
            self.assertIsNone(colocate.quiet_host(Options, None))
        finally:
            host.measure = measure


class Figures(unittest.TestCase):
    def test_quantiles_by_nearest_rank(self):
        self.assertEqual([results.quantile([5, 1, 3, 2, 4], q) for q in (0, 0.5, 0.95, 1)], [1, 3, 5, 5])
        self.assertEqual(results.quantile(range(1, 101), 0.95), 95)
        self.assertIsNone(results.quantile([], 0.5))


if __name__ == "__main__":
    unittest.main()
