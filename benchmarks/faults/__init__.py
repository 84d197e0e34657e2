"""What happens when processes die, and what grows."""
