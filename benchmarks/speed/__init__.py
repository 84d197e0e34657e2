"""Benchmarks of speed, with ratios to other implementations as results."""
