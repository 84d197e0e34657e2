"""How nets learn: the reference from the log, students from examples."""
