"""Tensors in files, without pickle: safetensors, the same bytes for the same tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diet_ray.errors import CorruptArtefactError


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes."""
    save_file(dict(sorted(tensors.items())), path)
    path.chmod(0o644)  # safetensors makes files that only their owner can read, but runs are on shared storage


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CorruptArtefactError, naming the file, where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CorruptArtefactError(
            f"{path}: not a readable safetensors file ({error}); restore it from a copy"
        ) from error
