"""Simulated logs of any size, with the true probability of every label."""
