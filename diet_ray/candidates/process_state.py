"""What the code of a candidate may change in the process in which it runs, kept so that it can be put back: the next candidate must not
depend on the one before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ProcessState:
    """The global state of torch, numpy, Python and the process, in the thread that asks for it."""

    dtype: torch.dtype
    """torch's default."""
    device: torch.device
    """torch's default."""
    gradients: bool
    """Whether autograd records."""
    threads: int
    """Of torch, for one operation."""
    deterministic: tuple[bool, bool]
    """Whether torch uses deterministic algorithms alone, and whether it only warns."""
    products: str
    """Precision of torch's float32 matrix products."""
    anomalies: tuple[bool, bool]
    """Whether autograd looks for anomalies, and for nan."""
    draws: tuple[Tensor, list[Tensor]]
    """Random state of torch, of the CPU and of each GPU in use."""
    numpy_draws: Any
    """Random state of numpy's global generator."""
    python_draws: Any
    """Random state of the module `random`."""
    numpy_errors: Any
    """What numpy does about division by zero, overflow and the like."""
    folder: str | None
    """The working directory; None where it was removed."""
    environment: dict[str, str]
    """The environment variables."""

    @staticmethod
    def now() -> ProcessState:
        """The present state."""
        folder = None
        with suppress(OSError):
            folder = os.getcwd()
        return ProcessState(
            dtype=torch.get_default_dtype(),
            device=torch.get_default_device(),
            gradients=torch.is_grad_enabled(),
            threads=torch.get_num_threads(),
            deterministic=(
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            products=torch.get_float32_matmul_precision(),
            anomalies=(torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            draws=(torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []),
            numpy_draws=np.random.get_state(),
            python_draws=random.getstate(),
            numpy_errors=np.geterr(),
            folder=folder,
            environment=dict(os.environ),
        )

    def restore(self) -> None:
        """Make it the present state again. What is as it was is not touched."""
        now = ProcessState.now()
        if now.dtype != self.dtype:
            torch.set_default_dtype(self.dtype)
        if now.device != self.device:
            torch.set_default_device(None if self.device.type == "cpu" else self.device)
        torch.set_grad_enabled(self.gradients)
        if now.threads != self.threads:
            torch.set_num_threads(self.threads)
        if now.deterministic != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        if now.products != self.products:
            torch.set_float32_matmul_precision(self.products)
        if now.anomalies != self.anomalies:
            torch.autograd.set_detect_anomaly(*self.anomalies)
        torch.set_rng_state(self.draws[0])
        if self.draws[1]:
            torch.cuda.set_rng_state_all(self.draws[1])
        np.random.set_state(self.numpy_draws)
        random.setstate(self.python_draws)
        np.seterr(**self.numpy_errors)
        if self.folder is not None and now.folder != self.folder:
            os.chdir(self.folder)
        self._restore_environment()

    def _restore_environment(self) -> None:
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


def seed_all(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python: what a candidate draws from them depends on its seed alone."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def put_back(*, environment: bool) -> Iterator[None]:
    """Put the state back after the body; with `environment` also the environment variables."""
    before = ProcessState.now()
    try:
        yield
    finally:
        (before if environment else replace(before, environment=dict(os.environ))).restore()
