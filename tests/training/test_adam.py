"""The optimisers do not import torch's compiler, which nothing here uses."""

from __future__ import annotations

import subprocess
import sys


def test_a_pass_and_a_student_do_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from tests.training.test_reference import new, rows, train_pass, Solo\n"
        "from tests.training.test_student import StudentConfig, examples, module, train_student\n"
        "train_pass(new(), [rows(60)], Solo(), rows=60)\n"
        "train_student(module(), examples(), StudentConfig(steps=2), seed=0)\n"
        "print('torch._dynamo' in sys.modules)\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]  # the second shows that torch's own optimisers would import it
