"""Measure how well results on reduced sets predict those on the full log, as a Ray job: `diet-ray fidelity` with the same options.

    ray job submit --address http://127.0.0.1:8265 -- \\
      python /home/ray/diet_ray/jobs/fidelity.py --config /home/ray/diet_ray/jobs/configs/fidelity.yaml --out /mnt/diet-ray/fidelity

If the job was killed, submit it again: it continues where it stopped.
"""

import sys

from diet_ray.cli import app

if __name__ == "__main__":
    app(["fidelity", *sys.argv[1:]])
