"""Judge candidates on a memory, as a Ray job: `diet-ray sweep` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/sweep.py --memory /mnt/diet-ray/runs/kuairand --out /mnt/diet-ray/sweeps/kuairand

`--candidates FILE` replaces the packaged pool. jobs/configs/candidates.yaml is an example, and jobs/configs/search.yaml is one with search
spaces, resources and trackers. Your own architectures are modules in a folder that `--working-dir` uploads; the file's key `modules` names
them. `--restore` continues an interrupted sweep.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["sweep", *sys.argv[1:]])
