"""Ingest files into a log of blocks on a cluster, as a Ray job: `diet-ray ingest` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/ingest.py /mnt/diet-ray/configs/schema.yaml \\
      --from /mnt/diet-ray/events --out /mnt/diet-ray/logs/mine --by day [--append]

Files, schema and log must be in folders that every node can read. `--append` adds the days that have ended since the last time: submit
the job every night.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["ingest", *sys.argv[1:]])
