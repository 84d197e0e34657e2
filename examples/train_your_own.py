"""A net of your own, trained on an exported memory with torch, pyarrow and safetensors alone, and judged on real rows.

diet-ray export runs/mine --out exports/mine
python examples/train_your_own.py exports/mine logs/mine/blocks/2022-05-06
"""

import json
import math
import sys
from pathlib import Path

# Before the seconds that the other imports take.
export, block = (
    map(Path, sys.argv[1:]) if len(sys.argv) == 3 else sys.exit("usage: python examples/train_your_own.py EXPORT BLOCK")
)

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

about = json.loads((export / "manifest.json").read_text())
units, rows = (pq.read_table([str(path) for path in sorted(folder.glob("*.parquet"))]) for folder in (export, block))
n_fields, dim, student = len(about["fields"]), about["dim"], about["student"]

x, weight = torch.tensor(units["x"].to_pylist()).view(-1, n_fields, dim), torch.tensor(units["weight"].to_pylist())
target = torch.tensor([units[f"soft_label_{task}"].to_pylist() for task in about["tasks"]]).T
net = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(n_fields * dim, 64), torch.nn.ReLU(), torch.nn.Linear(64, target.shape[1])
)
optimiser = torch.optim.Adam(net.parameters(), lr=student["lr"], eps=1e-5)
for step in range(student["steps"]):
    optimiser.param_groups[0]["lr"] = student["lr"] * (1 + math.cos(math.pi * step / student["steps"])) / 2
    batch = torch.randint(len(x), (student["batch_size"],))
    labels = torch.lerp(target[batch], torch.bernoulli(target[batch]), student["draw"])
    optimiser.zero_grad()
    binary_cross_entropy_with_logits(net(x[batch]), labels, weight[batch, None]).backward()
    optimiser.step()

# Real rows become inputs by the table: look ids up (one that it does not have is its field's unknown), average over each field's slots.
table, slots = load_file(export / "embeddings.safetensors")["table"], torch.tensor(about["slots"])
ids = torch.tensor(rows["ids"].to_pylist())
ids = torch.where(ids < len(table), ids, slots + 1)
share = (ids > 0).float()[:, :, None] * one_hot(slots, n_fields)
real = torch.einsum("nsd,nsf->nfd", table[ids], share / share.sum(dim=1, keepdim=True).clamp(min=1))
loss = binary_cross_entropy_with_logits(net(real), torch.tensor(rows["labels"].to_pylist()).float())
print(f"{len(x)} units, {student['steps']} steps; LogLoss on {len(real)} real rows: {loss:.4f}")
