"""Simulated logs of any size, with known true probabilities of all labels."""
