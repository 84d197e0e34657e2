"""All that speaks to Ray."""
