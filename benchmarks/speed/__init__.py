"""How fast, in ratios."""
