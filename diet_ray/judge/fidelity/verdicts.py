"""Trains candidates on one set of the bench and judges them on real rows, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.baselines import frozen_log, full_log, sample_own
from diet_ray.judge.fidelity.config import FULL
from diet_ray.judge.fidelity.plan import Bench, Training, TrainingSet
from diet_ray.judge.fidelity.reduced_sets import examples, reference, sample
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.logs.blocks import Rows
from diet_ray.seeds import derive_seed
from diet_ray.settings import parse_json, write_json


def train_set(bench: Bench, trainings: list[Training]) -> Iterator[Verdict]:
    """Do the trainings of one set, which is made once. Each verdict is written at once; verdicts that exist already are read.

    The run and the row ids of the set (`needs_run`, `select_rows`) must exist.
    """
    todo = [training for training in trainings if not bench.keys.verdict_path(training).is_file()]
    trainer = _Trainer(bench, todo[0].set) if todo else None
    for training in trainings:
        if trainer and training in todo:
            path = bench.keys.verdict_path(training)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, trainer.train(training))
        yield read_verdict(bench, training)


def read_verdict(bench: Bench, training: Training) -> Verdict:
    """A kept verdict, under the name that the candidate has now. Raises CorruptArtefactError where it is missing or damaged."""
    verdict = parse_json(Verdict, bench.keys.verdict_path(training))
    return verdict.model_copy(update={"candidate": training.candidate.name, "trained_on": str(training.set.method)})


class _Trainer:
    """One set, made once for all its trainings."""

    def __init__(self, bench: Bench, training_set: TrainingSet) -> None:
        self.bench, self.training_set = bench, training_set
        self.rows = Rows.concat([bench.log.read_block(block) for block in bench.judges(training_set)])
        method = training_set.method
        if method.of_full_log:
            self.table = None if method == FULL else reference(bench, training_set).table
        elif method.embeddings == "own":
            self.sample = sample(bench, training_set)
            if method.labels == "soft":
                # A model with its own embeddings can learn from any label in [0, 1].
                soft = torch.sigmoid(reference(bench, training_set)(self.sample.ids)).numpy()
                self.sample = replace(self.sample, labels=soft)
        else:
            self.examples, self.table = examples(bench, training_set)

    def train(self, training: Training) -> Verdict:
        bench, training_set, method = self.bench, self.training_set, self.training_set.method
        log, config, student = bench.log, bench.config.stream.reference, bench.student(training_set)
        spec: CandidateSpec = training.candidate.model_copy(update={"adapter": method.adapter})
        seed = derive_seed(training_set.seed, "student", training.student)
        if method == FULL:
            return full_log(spec, log, bench.seen(training_set), self.rows, config, seed=seed)
        if method.of_full_log:
            assert self.table is not None
            return frozen_log(spec, log, bench.seen(training_set), self.table, self.rows, config, seed=seed)
        if method.embeddings == "own":
            n_ids = bench.seen(training_set)[-1].n_ids
            return sample_own(spec, log, self.sample, self.rows, config, student, n_ids=n_ids, seed=seed)
        assert self.table is not None
        return judge(spec, self.examples, self.table, self.rows, log.schema, student, seed=seed, trained_on=str(method))
