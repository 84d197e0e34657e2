"""The one config tree of a distillation run (`diet-ray distill --config X.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as Key
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from diet_ray.candidates import CandidateSpec
from diet_ray.errors import ConfigError
from diet_ray.settings import Settings, load_yaml

Precision = Literal["float32", "bfloat16"]
"""The precision of matrix products. Inputs, weights, sums over rows and all that is kept are float32 in either case."""


class TableConfig(Settings):
    """Where the embedding table and its moments are. The tensors of a run do not depend on it, and it may change at a resume."""

    shards: Literal["auto"] | Annotated[int, Key(ge=1, strict=True)] = 1
    """1: the whole table in every worker. `auto`, or the number of workers: each worker has its part of the rows, and fetches those of a
    batch from the others."""
    on: Literal["ram", "mmap"] = "ram"
    """`mmap`: a worker's part is in files of the run folder that are mapped, so that it may be larger than the memory; they leave nothing
    behind. Needs a disk that is local and fast."""

    def split(self, workers: int) -> bool:
        """Whether the table is a `ShardedTable`, even of a single shard."""
        return (self.shards != 1 and workers > 1) or self.on == "mmap"


class ReferenceConfig(Settings):
    """Stage step 1: the reference model phi_t, trained continually, one pass per block."""

    nets: list[CandidateSpec] = Key(
        default=[
            CandidateSpec(name="lr", arch="lr", adapter=False),
            CandidateSpec(name="dnn", arch="dnn", params={"hidden": (128, 64)}, adapter=False),
            CandidateSpec(name="dcnv2", arch="dcnv2", params={"hidden": (64,)}, adapter=False),
        ],
        min_length=1,
    )
    """Interaction nets of the reference. They learn the embeddings together, each net with its own loss. A soft label is the mean of their
    predictions, so that it does not depend on one architecture. They take no adapter and drop no field."""
    dim: int = Key(default=16, ge=1)
    """d, width of the embeddings, which the memory and every candidate share."""
    batch_size: int = Key(default=256, ge=1)
    """Rows per step over all workers."""
    lr: float = Key(default=1e-3, gt=0, allow_inf_nan=False)
    """Adam's learning rate for the net."""
    embedding_lr: float = Key(default=5e-3, gt=0, allow_inf_nan=False)
    """Sparse Adam's learning rate for the embedding table."""
    embedding_l2: float = Key(default=0, ge=0, allow_inf_nan=False)
    """L2 penalty of the embedding table: a step adds `embedding_l2 * row` to the gradient of each row that its batch looks up."""
    checkpoints: int = Key(default=3, ge=1)
    """K, checkpoints kept per block, evenly spaced along the pass."""
    holdout: float = Key(default=0.1, ge=0, lt=1)
    """Share of a block's rows held back as hard targets; the reference learns from them one stage later."""
    table: TableConfig = TableConfig()

    @model_validator(mode="after")
    def _plain(self) -> ReferenceConfig:
        if any(net.adapter or net.drop_fields for net in self.nets):
            raise ValueError("reference.nets: adapter and drop_fields belong to candidates, not to the reference")
        for net in self.nets:
            if net.embedding_keys:
                raise ValueError(
                    f"reference.nets: {net.name!r} has {net.embedding_keys[0]}, but the nets share one table; set reference.embedding_lr, "
                    "embedding_l2 or dim"
                )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A newer key is left out where it has no effect: results stored under the hash of an older config are still found.
        plain = {"embedding_l2": not self.embedding_l2, "table": self.table == TableConfig()}
        return {name: value for name, value in write(self).items() if not plain.get(name, False)}

    def own(self, candidate: CandidateSpec) -> ReferenceConfig:
        """The same with the candidate's own settings of the embedding table."""
        keys = {"embedding_lr": "embedding_lr", "embedding_l2": "embedding_l2", "embedding_dim": "dim"}
        return self.model_copy(update={keys[key]: getattr(candidate, key) for key in candidate.embedding_keys})


class CheckpointsConfig(Settings):
    """How much of the reference stays on disk. Only the units' files are kept of every stage, whatever is set here."""

    keep: Literal["all"] | Annotated[int, Key(ge=1, strict=True)] = 2
    """Stages, counted from the last, of which the reference stays: its table and nets at the end of the pass, and the moments. From these
    stages candidates can be judged and launched. `all`: of every stage, with the K checkpoints along its pass, each whole."""
    whole_every: int = Key(default=16, ge=1)
    """Stages from one whole table to the next at most. The stages between write only the rows that changed, which need the stages before
    them down to a whole table; those stay as long as they are needed. 1: every table is whole."""


class SelectConfig(Settings):
    """Stage steps 2-3: which rows of the block become units."""

    strategy: Literal["top", "proportional", "ccs", "random"] = "proportional"
    """`top`: highest EL2N; `proportional`: drawn with p ~ EL2N; `ccs`: coverage-centric strata; `random`: uniform."""
    ccs_cut: float = Key(default=0.1, ge=0, lt=1)
    """`ccs`: share of the hardest rows of a cell that is set aside, rounded down to whole strata."""
    ccs_strata: int = Key(default=50, ge=2)
    """`ccs`: equal-width strata of EL2N over [0, sqrt 2]."""


class BudgetConfig(Settings):
    """Stage step 6: how many units the memory may hold. Exactly one of the two keys is set."""

    ratio: float | None = Key(default=None, gt=0, le=1)
    """Units as a share of all rows seen so far."""
    cap: int | None = Key(default=None, ge=1)
    """Fixed number of units; the units of lowest influence are removed, older ones first among equals."""

    @model_validator(mode="before")
    @classmethod
    def _keyed(cls, raw: Any) -> Any:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            raise ValueError(f"write {{ratio: {raw}}}" if 0 < raw <= 1 else f"write {{cap: {raw}}}")
        return raw

    @model_validator(mode="after")
    def _one(self) -> BudgetConfig:
        if (self.ratio is None) == (self.cap is None):
            raise ValueError("budget: give either ratio or cap")
        return self


class AlignConfig(Settings):
    """Stage step 5: how old units follow the reference from phi_{t-1} to phi_t."""

    method: Literal["reembed", "ridge", "procrustes", "none"] = "reembed"
    """`reembed`: look the ids up in the new table; `ridge`/`procrustes`: per-field map of the old inputs; `none`: keep them."""
    relabel: float = Key(default=1.0, ge=0, le=1)
    """g: the new logit is (1-g) * old + g * phi_t's."""


class StudentConfig(Settings):
    """How every student of the memory is trained: the horizon for which the memory is refined."""

    steps: int = Key(default=200, ge=1)
    """T, optimiser steps."""
    batch_size: int = Key(default=256, ge=1)
    """Units per step."""
    lr: float = Key(default=1e-2, gt=0, allow_inf_nan=False)
    """Adam's learning rate at the first step; it falls to 0 at the horizon along half a cosine."""
    draw: float = Key(default=0.75, ge=0, le=1)
    """Share of a soft label that is replaced by a 0 or 1, drawn anew at every visit: the noise of a pass over real rows. 0 for none."""


class RefineConfig(Settings):
    """Stage step 7: bi-level refinement of the memory (RaT-BPTT)."""

    rounds: int = Key(default=0, ge=0)
    """R, outer rounds per stage. 0, the default, leaves the memory unrefined, because on published logs refinement shows no gain
    (docs/ablations.md). 30 is a first value to try."""
    window: int = Key(default=20, ge=1)
    """W, differentiable inner steps of a round."""
    pool: int = Key(default=3, ge=1)
    """Proxies that are in training on the memory at a time; each does the steps of a window in every `pool`-th round, up to the horizon."""
    proxies: list[CandidateSpec] = Key(
        default=[
            CandidateSpec(name="dnn", arch="dnn", params={"hidden": (128, 64)}),
            CandidateSpec(name="fm", arch="fm"),
            CandidateSpec(name="dcnv2", arch="dcnv2"),
        ],
        min_length=1,
    )
    """Nets that learn from the memory in turn."""
    delta_lr: float = Key(default=1e-4, ge=0, allow_inf_nan=False)
    """Outer Adam's learning rate for `delta`, in units of the embedding (whose rms is about 0.05)."""
    logit_lr: float = Key(default=2e-3, ge=0, allow_inf_nan=False)
    """Outer Adam's learning rate for `logit`."""
    hard_batch: int = Key(default=1024, ge=1)
    """Rows of B_hard per round, over all workers."""
    uniform_share: float = Key(default=0.5, ge=0, le=1)
    """Share of B_hard that is drawn uniformly; the rest is drawn by reducible loss."""
    active: int = Key(default=4096, ge=1)
    """Most units that a round may change: those with the largest gradient influence on all hard targets."""
    address_every: int = Key(default=10, ge=1)
    """Rounds between two addressings."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A newer key is left out where it has no effect: results stored under the hash of an older config are still found.
        return {name: value for name, value in write(self).items() if name != "pool" or self.rounds}


class ClusterConfig(Settings):
    """The resources of the Ray cluster that a run uses."""

    workers: int = Key(default=1, ge=1)
    """Ray Train workers; they run for the whole stream."""
    cpus_per_worker: float = Key(default=0.5, gt=0, allow_inf_nan=False)
    """Logical CPUs of each worker."""
    gpus_per_worker: float = Key(default=0, ge=0, allow_inf_nan=False)
    """GPUs of each worker. With a GPU, it trains the reference, unrolls the proxies and, without scorers, scores on it; units are kept,
    aligned, measured and moved on the CPU. With a share of a GPU, several workers use one together."""
    threads_per_worker: int = Key(default=1, ge=1)
    """torch threads of each worker; the bytes of the result depend on it."""
    scorers: int = Key(default=0, ge=0)
    """Ray Data actors that score shards, started anew for each block. With 0 the first worker scores them itself, one after the other: as
    fast as one scorer, and faster than several scorers where blocks are small, because nothing has to start."""
    cpus_per_scorer: float = Key(default=0.5, gt=0, allow_inf_nan=False)
    """Logical CPUs of each scorer."""
    gpus_per_scorer: float = Key(default=0, ge=0, allow_inf_nan=False)
    """GPUs of each scorer, on which it scores. With a share of a GPU, several scorers use one together."""
    precision: Precision = "float32"
    """The precision of scoring's matrix products: `float32`, or `bfloat16`, which is faster on GPUs that have it and changes a soft label
    by 0.004 in the mean and rarely by more than 0.02. Reference and refinement are float32 in either case."""
    memory_shards: int = Key(default=2, ge=1)
    """N, shards of the synthetic memory in the object store, each with an owner that works on it; another number rounds differently."""
    max_failures: int = Key(default=0, ge=0)
    """Worker failures after which the run still restarts by itself, from the last committed stage."""

    @property
    def one_process(self) -> bool:
        """Whether Ray would only start one worker that does all the work, which a process without Ray does with the same bytes, sooner."""
        return self.workers == 1 and self.scorers == 0 and self.max_failures == 0

    @property
    def worker_may_drive(self) -> bool:
        """Whether the driver of a private Ray can be the only worker: Ray gives it no GPU and need not restart it."""
        return self.workers == 1 and self.max_failures == 0 and self.gpus_per_worker == 0

    @model_validator(mode="after")
    def _whole_gpus(self) -> ClusterConfig:
        for name, gpus in (("gpus_per_worker", self.gpus_per_worker), ("gpus_per_scorer", self.gpus_per_scorer)):
            if gpus > 1 and gpus != int(gpus):
                raise ValueError(f"cluster.{name}: {gpus} is neither a share of one GPU nor a whole number of them")
        if self.gpus_per_scorer and not self.scorers:
            raise ValueError("cluster.gpus_per_scorer: there are no scorers; set cluster.scorers to 1 or more")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Newer keys are left out where they have no effect: results stored under the hash of an older config are still found.
        plain = {"gpus_per_scorer": 0, "precision": "float32"}
        return {name: value for name, value in write(self).items() if name not in plain or value != plain[name]}


class StreamConfig(Settings):
    """A distillation run over the blocks of an ingested log."""

    log: Path
    """Folder of the ingested log."""
    blocks: int | None = Key(default=None, ge=1)
    """Number of blocks to distil, from the first; by default all but the last, on which candidates are then judged."""
    seed: int = Key(default=0, ge=0)
    """Seed of everything random."""
    reference: ReferenceConfig = ReferenceConfig()
    select: SelectConfig = SelectConfig()
    budget: BudgetConfig = BudgetConfig(ratio=0.01)
    align: AlignConfig = AlignConfig()
    student: StudentConfig = StudentConfig()
    refine: RefineConfig = RefineConfig()
    cluster: ClusterConfig = ClusterConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where it is the default: results stored under the hash of an older config are still found.
        plain = self.checkpoints == CheckpointsConfig()
        return {name: value for name, value in write(self).items() if name != "checkpoints" or not plain}

    @model_validator(mode="after")
    def _sharded(self) -> StreamConfig:
        table, workers = self.reference.table, self.cluster.workers
        if table.shards not in ("auto", 1, workers):
            raise ValueError(
                f"reference.table.shards: {table.shards} shards for {workers} workers (cluster.workers), but each worker has one shard; "
                "set it to auto, or to 1 for a whole table in each worker"
            )
        if table.on == "mmap" and table.shards == 1 and workers > 1:
            raise ValueError(
                f"reference.table.on: mmap is for a worker's own part of the table, but each of {workers} workers has the whole; set "
                "reference.table.shards to auto"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> StreamConfig:
        if self.refine.rounds and self.refine.window > self.student.steps:
            raise ValueError(
                f"refine.window ({self.refine.window}) is longer than student.steps ({self.student.steps})"
            )
        for proxy in self.refine.proxies:
            if proxy.embedding_keys:
                raise ValueError(
                    f"refine.proxies: {proxy.name!r} has {proxy.embedding_keys[0]}, but a proxy has no table of its own"
                )
        if self.refine.rounds and self.reference.holdout == 0:
            raise ValueError(
                "refine.rounds needs reference.holdout > 0: hard targets must be rows that the reference has not seen"
            )
        return self


class LaunchConfig(StreamConfig):
    """A run's config, its run folder and its archive. The last two do not change the result, so they are not in the run's manifests."""

    out: Path | None = None
    """Run folder; `--out` on the command line takes precedence."""
    archive: str | None = None
    """URI of a durable copy of every committed stage: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER. `--resume` fetches from
    there the stages that the run folder lacks. Set an endpoint other than Amazon's in AWS_ENDPOINT_URL, or at the end of the URI, as in
    `s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http`."""


def read_launch(path: Path, out: Path | None) -> tuple[Path, StreamConfig, str | None]:
    """The run folder, the config and the archive in a config file; `out` takes precedence over the file's own.

    Raises:
        ConfigError: the file cannot be read or has a bad key, or neither it nor `out` names the run folder.
    """
    launch = load_yaml(LaunchConfig, path)
    place = out or launch.out
    if place is None:
        raise ConfigError(f"{path}: missing key 'out': name the run folder there or with --out")
    return place, StreamConfig.model_validate(launch.model_dump(exclude={"out", "archive"})), launch.archive
