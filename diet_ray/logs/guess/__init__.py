"""A first schema for files that nobody has described: `diet-ray schema` reads some rows and writes guesses, with their reasons."""
