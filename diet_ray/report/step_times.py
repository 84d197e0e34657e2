"""How long the steps of a run's committed stages took, from its events."""

from __future__ import annotations

from typing import Any


def timings(events: list[dict[str, Any]]) -> dict[int, tuple[dict[str, float], float | None]]:
    """Per committed stage: seconds of each step and of the whole stage, of the attempt that was committed."""
    done: dict[int, tuple[dict[str, float], float | None]] = {}
    for stage, (began, steps, ended) in _committed(events).items():
        seconds = {event["step"]: event["seconds"] for event in steps}
        # A clock that is set back meanwhile makes the stage shorter than its steps, which are measured by another clock.
        done[stage] = (seconds, round(max(ended - began, sum(seconds.values())), 3))
    return done


def committed_steps(events: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Per committed stage: the events `step` of the attempt that was committed."""
    return {stage: steps for stage, (_, steps, _) in _committed(events).items()}


def _committed(events: list[dict[str, Any]]) -> dict[int, tuple[float, list[dict[str, Any]], float]]:
    """Per committed stage: when its last attempt began, its steps, and when it was committed."""
    begun: dict[int, tuple[float, list[dict[str, Any]]]] = {}
    done: dict[int, tuple[float, list[dict[str, Any]], float]] = {}
    for event in events:
        stage = event.get("stage", -1)
        if event["kind"] == "stage":
            begun[stage] = (event["time"], [])
        elif event["kind"] == "step" and stage in begun:
            begun[stage][1].append(event)
        elif event["kind"] == "committed" and stage in begun:
            done[stage] = (*begun[stage], event["time"])
    return done
