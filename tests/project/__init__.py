"""What surrounds the package: docs, cluster files, jobs."""
