"""Bytes that are whole, bounded and locked."""
