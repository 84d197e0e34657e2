"""How trials end, with Tune itself left out: what it does on Ctrl-C is copied from `ray.tune.tune.run`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from diet_ray.engine.tune import run_trials
from diet_ray.errors import DietError


class Results(list[Any]):
    """What `fit` gives: one result per trial, ended or not."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__(results)
        self.errors = [result.error for result in results if result.error]


class Heard(tune.Callback):
    def __init__(self, press: int | None) -> None:
        self.press, self.ended = press, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended += 1
        if self.ended == self.press:
            os.kill(os.getpid(), signal.SIGINT)


def fake(failing: int | None) -> Callable[..., Any]:
    """A Tuner that does a trial after the other; it stops after Ctrl-C, and leaves its handler behind where none comes."""

    def tuner(trainable: Any, *, param_space: dict[str, Any], tune_config: Any, run_config: Any) -> Any:
        interrupted: list[int] = []

        def handle(number: int, frame: Any) -> None:
            interrupted.append(number)

        def fit() -> Results:
            signal.signal(signal.SIGINT, handle)
            signal.signal(signal.SIGUSR1, handle)
            results = []
            for number in param_space["number"]["grid_search"]:
                if interrupted:
                    results.append(SimpleNamespace(metrics=None, error=None))
                    continue
                error = RuntimeError("died") if number == failing else None
                for callback in run_config.callbacks:
                    (callback.on_trial_error if error else callback.on_trial_complete)(0, [], None)
                results.append(SimpleNamespace(metrics={"number": number}, error=error))
            return Results(results)

        return SimpleNamespace(fit=fit)

    return tuner


def run(folder: Path, callback: tune.Callback, **options: Any) -> list[dict[str, Any]]:
    grid = {"number": [0, 1, 2, 3]}
    return run_trials(lambda trial: None, grid, name="x", storage=folder, cpus=1, callback=callback, **options)


@pytest.fixture(autouse=True)
def handlers_come_back() -> Any:
    numbers = (signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def test_all_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "Tuner", fake(None))
    assert run(tmp_path, Heard(None)) == [{"number": number} for number in range(4)]


@pytest.mark.parametrize("failing", [None, 0])
@pytest.mark.parametrize("tolerant", [True, False])
def test_what_ctrl_c_has_stopped_has_not_failed(
    failing: int | None, tolerant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "Tuner", fake(failing))
    heard = Heard(2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, heard, tolerant=tolerant)
    assert heard.ended == 2


def test_a_trial_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "Tuner", fake(2))
    with pytest.raises(DietError, match="1 of 4 trials failed, the first with: died"):
        run(tmp_path, Heard(None))
    assert len(run(tmp_path, Heard(None), tolerant=True)) == 4
