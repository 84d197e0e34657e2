"""Where the numbers of a process are: on the CPU, or on the GPU that Ray has given to it; and how exactly it multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from diet_ray.config import Precision
from diet_ray.errors import ResourceError
from diet_ray.seeds import derive_seed

CPU = torch.device("cpu")


def gpu_fault(precision: Precision) -> str | None:
    """Why this process cannot work on a GPU, with the remedy; None where it can."""
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no CUDA GPU here: install a CUDA build of torch and its driver on every node with GPUs, or "
            "set cluster.gpus_per_worker and cluster.gpus_per_scorer to 0"
        )
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{torch.cuda.get_device_name()} has no bfloat16 products: set cluster.precision to float32"
    return None


def device_of(gpus: float, precision: Precision) -> torch.device:
    """The device of a process to which Ray has given so many GPUs: the first of those that it sees, or the CPU.

    Raises:
        ResourceError: it has been given one and cannot use it.
    """
    if not gpus:
        return CPU
    fault = gpu_fault(precision)
    if fault:
        raise ResourceError(fault)
    return torch.device("cuda")


def put(values: Tensor, device: torch.device) -> Tensor:
    """`values` on a device. A GPU fetches them from pinned memory by itself, while the CPU goes on to the next batch."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def draws_on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """A generator of draws on a device, which must be of its own kind: on the CPU `rng` itself, on a GPU one that `rng` seeds."""
    if device.type != "cuda":
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


def forked(device: torch.device) -> list[torch.device]:
    """The GPUs whose random numbers `torch.random.fork_rng` must put aside beside the CPU's, for work on a device."""
    return [device] if device.type == "cuda" else []


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Within it, matrix products on the device are of that precision.

    Made for scoring: `bfloat16`, with its 8 significant bits, moves a probability by 0.004 in the mean and, of 99 in 100 rows, by at most
    0.02 (tested for all architectures). It is not for the inner loop of refinement, where rounding adds up along the window: over 20
    steps of 256 units WuKong's meta-gradient was off by 0.74 of its length and a DNN's by 0.17; 0.05 is what would be allowed (tested).
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, of draws on a device: a GPU draws other numbers than the CPU."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch work with so many threads for the length of the body: they are part of what determines the bytes of a result."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
