"""."""

from __future__ import annotations
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from diet_ray.blocks import Rows
from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import Precision, ReferenceConfig
from diet_ray.crew import Crew
from diet_ray.device import CPU, autocast, put
from diet_ray.embedding import Embedding, lookup
from diet_ray.errors import CorruptArtefactError
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed, uniform_by_id


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes."""
    save_file(dict(sorted(tensors.items())), path)
    path.chmod(0o644)  # safetensors lets the owner alone read, but runs lie on storage that others share


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CorruptArtefactError, naming the file, where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CorruptArtefactError(f"{path}: not a readable safetensors file ({error})") from error
