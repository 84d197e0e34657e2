"""Benchmarks against other implementations and against the previous build; each is one command: `python -m benchmarks.PART.NAME`."""
