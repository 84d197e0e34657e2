"""diet_ray: streaming dataset distillation for recommender systems, on Ray.

From the ground up; a part imports only what stands above it in this list (tests/test_layers.py):

    errors, seeds, figures, mapper, faces, kinds      links      settings      schema
    storage     bytes that are whole, bounded and locked
    logs        click logs: ingestion, published ones, simulated ones
    candidates  architectures; a new net is one file
    config      the config of a run
    training    how nets learn
    memory      units, and the run folder that keeps them
    distill     one stage of the stream, a file per step
    report      what a run shows and hands out
    judge       candidates on a memory, and the memory itself
    engine      all that speaks to Ray
    demo, cli   the whole path; one file per command
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

__version__ = "0.1.0"

__all__ = [
    "Log",
    "Memory",
    "Net",
    "Rows",
    "Settings",
    "Shape",
    "load_memory",
    "open_log",
    "register_candidate",
]

if TYPE_CHECKING:
    from diet_ray.candidates import Net, Shape
    from diet_ray.candidates import register as register_candidate
    from diet_ray.logs.blocks import Log, Rows, open_log
    from diet_ray.memory.dataset import Memory, load_memory
    from diet_ray.settings import Settings

_PLACES = {
    "Log": "logs.blocks",
    "Memory": "memory.dataset",
    "Net": "candidates",
    "Rows": "logs.blocks",
    "Settings": "settings",
    "Shape": "candidates",
    "load_memory": "memory.dataset",
    "open_log": "logs.blocks",
    "register_candidate": "candidates:register",
}
__getattr__ = late(__name__, _PLACES)
