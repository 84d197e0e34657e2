"""Tensors in files, without pickle: safetensors, the same bytes for the same tensors.

A file is read by mapping it, and written piece by piece: neither needs memory of the size of its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diet_ray.errors import CorruptArtefactError

KINDS = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16"}
"""The types that are written, in the order in which a file has tensors of them."""

PIECE_BYTES = 8 << 20
"""About the bytes of a tensor that are copied at once."""


@dataclass(frozen=True)
class Pieces:
    """A tensor that is written without being in memory as a whole."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Iterator[Tensor]]
    """Returns its parts along the first dimension, in order."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor | Pieces]) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes, which are those of the library `safetensors`."""
    kinds = list(KINDS)
    names = sorted(tensors, key=lambda name: (kinds.index(tensors[name].dtype), name))
    header, end = {}, 0
    for name in names:
        value, begin = tensors[name], end
        end += prod(value.shape) * value.dtype.itemsize
        header[name] = {"dtype": KINDS[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.unlink(missing_ok=True)  # tensors that are mapped from a file of this name stay as they are
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            value = tensors[name]
            for part in value.read() if isinstance(value, Pieces) else _cut(value):
                file.write(np.ascontiguousarray(part.detach().cpu().numpy()).data)
    path.chmod(0o644)  # runs are on shared storage, whatever the umask


def _cut(value: Tensor) -> Iterator[Tensor]:
    """Parts of a tensor along its first dimension."""
    if not value.dim():
        return iter((value,))
    row = max(1, prod(value.shape[1:]) * value.dtype.itemsize)
    return iter(torch.split(value, max(1, PIECE_BYTES // row)))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file: it is mapped privately, so that only the pages that are touched are read, and only changed pages are copied.

    Raises CorruptArtefactError, naming the file, where it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CorruptArtefactError(
            f"{path}: not a readable safetensors file ({error}); restore it from a copy"
        ) from error
