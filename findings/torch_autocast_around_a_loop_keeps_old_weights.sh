#!/usr/bin/env bash
# torch: a training loop inside one autocast context computes every step with the weights of the first step.
#
# Versions: torch 2.13.0 on the CPU, bfloat16, on Python 3.11 or later.
# Expected: with the whole loop in `torch.autocast`, or with each forward pass in a context of its own, a logistic regression learns alike:
#           `optimizer.step()` changes its weights in both cases.
# Seen: the weights change, but autocast keeps the bfloat16 copies that it made in the first step until the context ends, and a change in
#       place does not drop them. So the loss of every step is that of the first weights, no error and no warning is given, and a model that
#       is judged in the same context (progressively, each batch just before it is learned) seems to learn nothing.
# Output:
#   one context for the loop: 0.8520 0.8520 0.8520 0.8520 0.8520 0.8520
#   a context for each step:  0.8520 0.7032 0.5994 0.5267 0.4740 0.4351
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 2>/dev/null
cat > "$work/loop.py" <<'PY'
from contextlib import nullcontext

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def losses(around_the_loop, around_a_step):
    """Six steps of a logistic regression: the loss with which each begins."""
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1, bias=False)
    torch.manual_seed(1)
    x = torch.randn(64, 4)
    y = (x.sum(dim=1, keepdim=True) > 0).float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    found = []
    with around_the_loop():
        for _ in range(6):
            with around_a_step():
                loss = binary_cross_entropy_with_logits(net(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(round(loss.item(), 4))
    return found


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


whole, each = losses(autocast, nullcontext), losses(nullcontext, autocast)
print("one context for the loop:", *(f"{loss:.4f}" for loss in whole))
print("a context for each step: ", *(f"{loss:.4f}" for loss in each))
raise SystemExit(not (len(set(whole)) == 1 and each[-1] < 0.8 * each[0] and whole[0] == each[0]))
PY
"$work/venv/bin/python" "$work/loop.py"
