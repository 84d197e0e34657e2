"""A trial cannot spoil the others, whatever its candidate's code does."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.candidates.process_state import ProcessState
from diet_ray.errors import DietError
from diet_ray.judge.attempt import alarm, guarded, reason
from diet_ray.judge.run_sweep import judge_pool
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.trial import Report
from tests.support.small_run import POOL


def seen() -> dict[str, Any]:
    """What the next trial would find."""
    state = vars(ProcessState.now()).copy()
    state["draws"] = torch.rand(3).tolist()
    state["numpy_draws"] = np.random.rand(3).tolist()
    state["python_draws"] = random.random()
    return state


def change_everything(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.autograd.set_detect_anomaly(True)
    torch.manual_seed(4)
    np.random.seed(4)
    random.seed(4)
    np.seterr(all="ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["DIET_RAY_OF_A_CANDIDATE"] = "1"
    del os.environ["HOME"]
    os.chdir(folder)


def trial(*steps: Callable[[], object]) -> Iterator[Report]:
    for number, step in enumerate(steps):
        step()
        yield Report(number, 0.5, [])


def run(*steps: Callable[[], object], seconds: float | None = None) -> int:
    """Run a trial of these steps; gives the number of its reports."""
    return len(list(guarded(trial(*steps), 7, seconds, alarm)))


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_trial_changes_is_put_back(fails: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = seen()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    handler = signal.getsignal(signal.SIGINT)

    def spoil() -> None:
        change_everything(tmp_path)
        if fails:
            raise ArithmeticError

    if fails:
        with pytest.raises(ArithmeticError):
            run(spoil)
    else:
        assert run(spoil) == 1
    assert signal.getsignal(signal.SIGINT) == handler
    assert seen() == before


def test_a_folder_that_a_trial_removes_under_itself_is_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    here = Path.cwd()

    def spoil() -> None:
        os.chdir(tmp_path / "mine")
        (tmp_path / "mine").rmdir()

    assert run(spoil, lambda: None) == 2
    assert Path.cwd() == here


def test_global_draws_depend_on_the_seed_alone_and_not_on_pauses() -> None:
    def draws(*pauses: bool) -> list[float]:
        drawn: list[float] = []

        def draw() -> None:
            drawn.extend([float(torch.rand(())), float(np.random.rand()), random.random()])

        steps = guarded(trial(*[draw for _ in pauses]), 7, None, alarm)
        for pause in pauses:
            next(steps)
            if pause:
                torch.rand(5), np.random.rand(5), random.random()
        return drawn

    assert draws(False, False, False) == draws(True, True, False)
    assert len(set(draws(False, False))) == 6


class Unsayable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Numbered(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("caf\udce9 \ud800\nnext"), "ValueError: caf\\udce9 \\ud800 next"),
        (Unsayable(), "Unsayable: its text cannot be made: SystemExit"),
        (Numbered(), "Numbered: its text cannot be made: TypeError"),
        (ValueError("x" * 10_000), f"ValueError: {'x' * 2000}..."),
        (ArithmeticError(), "ArithmeticError:"),
        (DietError("too\nlarge"), "too large"),
    ],
)
def test_a_reason_is_one_line_that_can_be_stored(error: Exception, said: str) -> None:
    assert reason(error).strip() == said  # without a traceback: it was never raised
    reason(error).encode()


def test_what_torch_refuses_is_told_with_the_line_that_asked_for_it() -> None:
    with pytest.raises(TypeError) as raised:
        torch.nn.Linear(((3, 4), 5), 2)
    assert raised.traceback[-1].path.name == "linear.py"
    assert f"(test_attempt.py, line {raised.traceback[0].lineno + 1})" in reason(raised.value)


def leave(code: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise code

    return step


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_who_ends_the_process_only_fails(error: BaseException) -> None:
    with pytest.raises(DietError, match=rf"{type(error).__name__}.*\(test_attempt.py, line \d+\): the code of a cand"):
        run(lambda: None, leave(error))


def catching() -> None:
    """As a careless candidate does."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except BaseException:
        pass


@pytest.mark.parametrize("step", [catching, lambda: os.kill(os.getpid(), signal.SIGINT)])
def test_a_real_ctrl_c_ends_all_even_if_it_is_caught(step: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(step)


def deaf() -> None:
    """Hangs, and catches what would end it twice."""
    for _ in range(2):
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass
    while True:
        pass


@pytest.mark.parametrize("step", [lambda: time.sleep(20), deaf])
def test_who_hangs_is_ended(step: Callable[[], None]) -> None:
    began, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(
        DietError, match=r"^hangs, or is too slow: not done after 0\.05 s \(key 'resources\.timeout'\)$"
    ):
        run(lambda: None, step, seconds=0.05)
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_limit_is_of_the_trial_and_not_of_a_step() -> None:
    def nap() -> None:
        time.sleep(0.06)

    assert run(nap, nap, seconds=10) == 2
    with pytest.raises(DietError, match="hangs"):
        run(nap, nap, nap, seconds=0.15)


def test_a_limit_needs_the_main_thread(finished: Path, tmp_path: Path) -> None:
    pool = {"candidates": [{"name": "fm", "arch": "fm"}], "resources": {"timeout": 5}}
    failures: list[str] = []

    def sweep() -> None:
        try:
            judge_pool(finished, SweepConfig.model_validate(pool), out=tmp_path / "sweep", live=0)
        except DietError as error:
            failures.append(str(error))

    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert failures == [
        "key 'resources.timeout': without Ray it needs the main thread, because a signal ends a trial; leave the key out"
    ]
    assert not (tmp_path / "sweep").exists()


NETS = """
import os, random, sys
import numpy as np, torch
from torch import nn
import diet_ray

torch.set_default_dtype(torch.float64)  # at import, too

class Params(diet_ray.Settings):
    mode: str

class Unsayable(Exception):
    def __str__(self): raise ValueError

@diet_ray.register_candidate("odd")
class Odd(diet_ray.Net):
    Params = Params

    def __init__(self, shape, params, generator):
        super().__init__(shape, params, generator)
        self.mode = params.mode
        if self.mode == "batch": self.norm = nn.BatchNorm1d(3)
        self.weight = nn.Parameter(torch.randn(shape.width, shape.n_tasks, generator=generator, dtype=torch.float32))

    def forward(self, x):
        if self.mode == "text": raise ValueError("\\udce9\\ud800")
        if self.mode == "unsayable": raise Unsayable
        if self.mode == "exit": sys.exit(3)
        if self.mode == "ctrl-c": raise KeyboardInterrupt
        if self.mode == "state":
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(3)
            torch.manual_seed(0)
            os.chdir("/")
        return x.flatten(1) @ self.weight
"""


def test_the_others_are_judged_as_if_they_were_alone(finished: Path, user_code: Path) -> None:
    (user_code / "odd_nets.py").write_text(NETS)
    modes = ["text", "unsayable", "exit", "ctrl-c", "state", "batch"]
    odd = [{"name": mode, "arch": "odd", "params": {"mode": mode}} for mode in modes]
    good = POOL.model_dump(mode="json")["candidates"]
    config = SweepConfig.model_validate({"modules": ["odd_nets"], "candidates": [*odd, *good]})
    assert torch.get_default_dtype() == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        board = judge_pool(
            finished, config, out=Path("all"), live=0, seeds=1
        )  # a relative path, and one changes the folder
    alone = judge_pool(finished, POOL, out=Path("alone"), live=0, seeds=1)
    times = {"train_seconds", "train_wall_seconds"}
    ours = [one.model_dump(exclude=times) for one in board.verdicts if one.candidate not in modes]
    assert ours == [one.model_dump(exclude=times) for one in alone.verdicts]
    assert {one.candidate for one in board.verdicts} == {"state", *(one["name"] for one in good)}
    assert [(one.candidate, one.why.partition(" (")[0]) for one in board.failed] == [
        ("text", "ValueError: \\udce9\\ud800"),
        ("unsayable", "Unsayable: its text cannot be made: ValueError"),
        ("exit", "SystemExit: 3"),
        ("ctrl-c", "KeyboardInterrupt:"),
        ("batch", "arch 'odd': norm"),
    ]
