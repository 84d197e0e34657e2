"""Judging candidates on a memory, and the memory itself."""
