"""How far a memory is to be trusted."""
