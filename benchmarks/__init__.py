"""Measurements against peers and against the build before, each one command: `python -m benchmarks.PART.NAME`."""
