"""A process that trains students with the build of diet_ray on its PYTHONPATH, this one or an earlier one: see `benchmarks.speed.students`.

It reads the name of a net per line, and answers with the CPU seconds of a student's steps on given inputs, or, after the word `launched`,
of a launch with a table.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
made_rows: Any = importlib.import_module("made_rows")
made_units: Any = importlib.import_module("made_units")


def student_seconds(name: str, units: Any) -> float:
    """CPU seconds of a student with the shipped settings."""
    candidates, config = importlib.import_module("diet_ray.candidates"), importlib.import_module("diet_ray.config")
    try:
        students: Any = importlib.import_module("diet_ray.training.student")
    except ModuleNotFoundError:
        students = importlib.import_module("diet_ray.student")
    spec = candidates.CandidateSpec(name=name, arch=name)
    fields = [f"f{number}" for number in range(units.ids.shape[1])]
    module = candidates.build(spec, fields, made_units.DIM, 1, 0)
    examples = students.Examples(units.x, units.logit, units.weight)
    began = time.process_time()
    students.train_student(module, examples, config.StudentConfig(), seed=1)
    return time.process_time() - began


def launch_seconds(name: str, units: Any) -> float:
    """CPU seconds of the steps of a launch with the shipped recipe."""
    from diet_ray.candidates import CandidateSpec
    from diet_ray.config import ReferenceConfig
    from diet_ray.judge.launch import Launching
    from diet_ray.judge.start import Start
    from diet_ray.memory.moments import TableMoments
    from diet_ray.schema import Schema
    from diet_ray.training.embedding import new_rows

    fields = [{"name": f"f{number}", "kind": "vocabulary"} for number in range(units.ids.shape[1])]
    time_of = {"column": "time", "timezone": "UTC"}
    schema = Schema.model_validate(
        {"name": "made", "time": time_of, "user": "f0", "tasks": ["label"], "fields": fields}
    )
    table = new_rows(0, made_units.IDS, made_units.DIM, 0)
    moments = TableMoments(step=100, exp_avg=torch.zeros_like(table), exp_avg_sq=torch.full_like(table, 1e-8))
    soft, delta = torch.sigmoid(units.logit), torch.zeros_like(units.x)
    start = Start(schema, ReferenceConfig(), table, moments, units.ids, delta, soft, units.weight)
    launching = Launching(start, CandidateSpec(name=name, arch=name), seed=1)
    began = time.process_time()
    launching.advance(launching.steps)
    return time.process_time() - began


def seconds(name: str, launched: bool, units: Any) -> float:
    """CPU seconds of a student, or of a launch."""
    return launch_seconds(name, units) if launched else student_seconds(name, units)


if __name__ == "__main__":
    made_units.answer(made_rows, seconds)
