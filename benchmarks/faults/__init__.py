"""Benchmarks of faults: processes that are killed, and resources that leak."""
