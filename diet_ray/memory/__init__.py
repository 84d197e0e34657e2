"""The memory: its units, and the run folder and the archive that keep them."""
