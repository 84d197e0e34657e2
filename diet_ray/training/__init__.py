"""Training of nets: the reference on the log, students on examples.

embedding  the embedding table of all fields
device     CPU or GPU, threads, random numbers
workers    the processes that train together
holdout    held-out rows
adam       the optimiser
reference  phi_t, trained by one pass per block
predictor  predictions by a checkpoint
room       whether a table fits into the memory here
student    training of a candidate on examples
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.training.embedding import Embedding as Embedding
    from diet_ray.training.embedding import lookup as lookup
    from diet_ray.training.predictor import Predictor as Predictor
    from diet_ray.training.reference import Reference as Reference
    from diet_ray.training.reference import train_pass as train_pass
    from diet_ray.training.student import Examples as Examples
    from diet_ray.training.student import Student as Student
    from diet_ray.training.student import predict as predict
    from diet_ray.training.student import train_student as train_student

_PLACES = {
    "Embedding": "embedding",
    "lookup": "embedding",
    "Reference": "reference",
    "train_pass": "reference",
    "Predictor": "predictor",
    "Examples": "student",
    "Student": "student",
    "train_student": "student",
    "predict": "student",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
