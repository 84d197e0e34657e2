"""Distil a log on a cluster, as a Ray job: `diet-ray distill` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/distill.py --config /mnt/diet-ray/configs/distill.yaml [--out RUN] [--resume | --follow LOG]

The job fails (exit code 2) where a config, the log or the cluster is at fault; its log ends with the reason. Run it again with
`--resume` to continue after the last committed stage. With `--follow` it begins or continues the run and waits for the log's next
blocks until `ray job stop`; between two stages it holds none of the cluster's CPUs.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["distill", *sys.argv[1:]])
