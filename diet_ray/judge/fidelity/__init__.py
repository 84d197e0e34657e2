"""The fidelity bench: how well results on a reduced set predict results on the full log (`diet-ray fidelity`)."""

"""."""
