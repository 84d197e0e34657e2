"""Judge candidates on a memory, as a Ray job: `diet-ray sweep` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/sweep.py --memory /mnt/diet-ray/runs/kuairand --out /mnt/diet-ray/sweeps/kuairand

`--candidates FILE` names another pool than the packaged one; jobs/configs/candidates.yaml is a start, and jobs/configs/search.yaml one
with search spaces, resources and trackers.
Architectures of your own come along with `--working-dir`: modules of that folder, named by the file's key `modules`. `--restore` goes on
with a sweep that was interrupted.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["sweep", *sys.argv[1:]])
