"""One script per engine, and the log that all of them write. The scripts run without diet_ray, each in an environment of its own."""
