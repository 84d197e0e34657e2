"""Distil a log on a cluster, as a Ray job: `diet-ray distill` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/distill.py --config /mnt/diet-ray/configs/distill.yaml [--out RUN] [--resume | --follow LOG]

The job fails with exit code 2 if there is an error in a config, the log or the cluster; the last line of its output gives the reason.
Submit it again with `--resume` to continue after the last committed stage. With `--follow` it begins or continues the run and waits for
the log's next blocks until `ray job stop`; between two stages it uses no CPUs of the cluster.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["distill", *sys.argv[1:]])
