"""Benchmarks of fidelity: how far to trust a memory."""
