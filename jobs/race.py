"""Find the best candidate on a memory, as a Ray job: `diet-ray race` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/race.py --memory /mnt/diet-ray/runs/kuairand --out /mnt/diet-ray/races/kuairand

`--candidates FILE` takes the same files as `jobs/sweep.py`. `--restore` continues an interrupted race.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["race", *sys.argv[1:]])
