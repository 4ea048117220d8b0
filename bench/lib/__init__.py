"""What the benchmarks share. Python's standard library only, 3.9 or newer."""
