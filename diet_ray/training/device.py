"""The device of a process, which is the CPU or the GPU that Ray has assigned to it, and the precision of its matrix products."""

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
    """The device of a process to which Ray has assigned `gpus` GPUs: the first visible one, or the CPU if `gpus` is 0.

    Raises:
        ResourceError: the process has a GPU but cannot use it.
    """
    if not gpus:
        return CPU
    fault = gpu_fault(precision)
    if fault:
        raise ResourceError(fault)
    exact_products()
    return torch.device("cuda")


def exact_products() -> None:
    """Let float32 products of this process be float32's. `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`, which NVIDIA's images of torch set, rounds
    their factors to 11 significant bits on a GPU; this call comes after it."""
    torch.set_float32_matmul_precision("highest")


def put(values: Tensor, device: torch.device) -> Tensor:
    """`values` on a device. The copy from pinned memory to a GPU is asynchronous, so the CPU can prepare the next batch."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def draws_on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """A generator for draws on a device, which must be on that device: `rng` itself on the CPU, one seeded by `rng` on a GPU."""
    if device.type != "cuda":
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


def forked(device: torch.device) -> list[torch.device]:
    """The GPUs whose random state `torch.random.fork_rng` must save in addition to the CPU's, for work on a device."""
    return [device] if device.type == "cuda" else []


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which matrix products on the device have that precision.

    It is meant for scoring: `bfloat16` has 8 significant bits and changes a probability by 0.004 on average, and by at most 0.02 in 99 of
    100 rows (tested for all architectures). It is not meant for the inner loop of refinement, where rounding errors add up along the
    window: over 20 steps of 256 units, the error of the meta-gradient was 0.74 of its length for WuKong and 0.17 for a DNN; 0.05 would be
    acceptable (tested).
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, for draws on a device; a GPU draws other numbers than the CPU."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use `number` threads in the body of the `with` statement: the bytes of a result depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
