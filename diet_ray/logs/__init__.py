"""Click logs: how they lie on disk, how files become one, published ones, and simulated ones."""
