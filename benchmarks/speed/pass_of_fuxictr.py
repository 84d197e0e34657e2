"""A process that runs the training steps of FuxiCTR over the same rows with the same nets: see `benchmarks.speed.passes`.

Its batches are cut beforehand and are not timed. Its Adam is torch's and moves the whole table in each step, for it has no other. It reads
the name of a net per line, and answers with the CPU seconds of all steps.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel

sys.path.insert(0, str(Path(__file__).parent))
made_rows: Any = importlib.import_module("made_rows")

DIM, BATCH, HIDDEN, CROSSES, LR = 16, 256, [256, 128], 3, 1e-3


class Model(BaseModel):  # type: ignore[misc]
    """A deep net, with crosses beside it or without."""

    def __init__(self, features: FeatureMap, folder: str, *, crosses: bool) -> None:
        super().__init__(features, verbose=0, model_root=folder, metrics=["AUC"])
        width = DIM * len(features.features)
        self.embed = FeatureEmbedding(features, DIM)
        self.deep = MLP_Block(input_dim=width, hidden_units=HIDDEN, output_dim=None if crosses else 1)
        self.cross = CrossNetV2(width, CROSSES) if crosses else None
        self.out = torch.nn.Linear(width + HIDDEN[-1], 1) if crosses else None
        self.compile("adam", "binary_crossentropy", LR)
        self.reset_parameters()
        self.model_to_device()
        self._max_gradient_norm = 10.0  # as `fit` sets it

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch's predictions."""
        x = self.embed(self.get_inputs(inputs)).flatten(start_dim=1)
        logits = self.deep(x)
        if self.cross is not None and self.out is not None:
            logits = self.out(torch.cat([self.cross(x), logits], dim=-1))
        return {"y_pred": self.output_activation(logits)}


def main() -> None:
    """Answer until the input ends."""
    shape, n = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    sizes = made_rows.VALUES[shape]
    names = [f"f{number}" for number in range(len(sizes))]
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureMap("made", folder)
        features.labels, features.num_fields = ["label"], len(sizes)
        features.features = OrderedDict(
            (name, {"type": "categorical", "source": "", "vocab_size": size + 1, "padding_idx": 0})
            for name, size in zip(names, sizes, strict=True)
        )
        ids, labels = torch.tensor(made_rows.made_ids(shape, n) + 1), torch.tensor(made_rows.made_labels(n))
        batches = [
            {name: part[:, number] for number, name in enumerate(names)} | {"label": label[:, 0]}
            for part, label in zip(ids.split(BATCH), labels.split(BATCH), strict=True)
        ]
        models: dict[str, Model] = {}
        for line in sys.stdin:
            name = line.strip()
            if name not in models:
                models[name] = Model(features, folder, crosses=name != "dnn")
            model = models[name].train()
            began, total = time.process_time(), 0.0
            for batch in batches:
                total += model.train_step(batch).item()
            print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
