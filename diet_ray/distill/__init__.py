"""One stage of the stream, a file per step.

pipeline        the stages and their order of steps
el2n            EL2N, the score of a row
score           step 2
select          step 3
convert         step 4
align           step 5
fuse            step 6
refine          step 7
bilevel         meta-gradient of refinement
address         choice of the units and hard targets of refinement
sharded_memory  M_t in shards
unit_shard      one shard of M_t
local           engine in this process, without Ray
follow          follow mode, for a log that grows
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.distill.follow import follow_log as follow_log
    from diet_ray.distill.local import LocalEngine as LocalEngine
    from diet_ray.distill.local import distil_locally as distil_locally
    from diet_ray.distill.pipeline import Engine as Engine
    from diet_ray.distill.pipeline import blocks_to_distil as blocks_to_distil
    from diet_ray.distill.pipeline import check_nets as check_nets
    from diet_ray.distill.pipeline import run_stream as run_stream

_PLACES = {
    "run_stream": "pipeline",
    "Engine": "pipeline",
    "blocks_to_distil": "pipeline",
    "check_nets": "pipeline",
    "LocalEngine": "local",
    "distil_locally": "local",
    "follow_log": "follow",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
