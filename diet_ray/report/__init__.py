"""What a run shows to people, and what it hands out."""
