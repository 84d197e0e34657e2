"""The benchmark of students: its plain nets are those of the pool, and its claims are ratios of what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.speed import plain_nets, speed_table, students
from benchmarks.speed.passes import OLD
from diet_ray.candidates import CandidateSpec, build

SCRIPTS = Path(students.__file__).parent
F, D = 5, 16


def copied(ours: nn.Module, theirs: nn.Module) -> None:
    """Give a plain net the parameters of ours; both have them in an order of their own."""
    left = [parameter.detach() for parameter in ours.parameters()]
    with torch.no_grad():
        for parameter in theirs.parameters():
            same = next(number for number, value in enumerate(left) if value.shape == parameter.shape)
            parameter.copy_(left.pop(same))
    assert not left


@pytest.mark.parametrize("name", students.NETS)
def test_a_plain_net_has_the_parameters_of_the_pools(name: str) -> None:
    ours = build(CandidateSpec(name=name, arch=name), [f"f{number}" for number in range(F)], D, 1, seed=0)
    theirs = plain_nets.net(name, F, D, adapted=True)
    copied(ours, theirs)
    x = torch.randn(3, F, D, generator=torch.Generator().manual_seed(0))
    assert theirs(x).shape == ours(x).shape == (3, 1)
    if name in ("dnn", "dcnv2"):  # the others have several parameters of one shape
        torch.testing.assert_close(theirs(x), ours(x))


def test_claims_are_ratios_by_turns(tmp_path: Path) -> None:
    figures = [
        students.Trained(net="dnn", launched=launched, other=other, ours=[1.0, 2.0, 1.0], theirs=[2.0, 2.0, 1.6])
        for launched, other in ((False, students.PLAIN), (True, students.PLAIN), (False, OLD))
    ]
    result = students.StudentsResult(machine=students.Machine.here(), shape="x", units=1000, trained=figures)
    (tmp_path / "students.json").write_text(result.model_dump_json(), encoding="utf-8")
    claims = speed_table.claims(tmp_path)
    assert [(claim.measured, claim.aim) for claim in claims] == [("0.62", "<= 0.7"), ("0.62", "<= 0.7"), ("0.62", "")]
    assert students.table(result)[1][1] == ["dnn", "launched", "a plain loop", "1.00", "1.60", "0.62", "<= 0.7"]


def test_both_processes_answer(tmp_path: Path) -> None:
    """A few steps of both, in this process: the scripts stand alone, as the earlier build needs them."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import made_units
        import steps_of_build
        import steps_plainly
    finally:
        sys.path.remove(str(SCRIPTS))
    ids = torch.arange(300 * F).remainder(50).view(300, F) + F + 1
    units = made_units.made_units(ids)
    assert steps_of_build.student_seconds("dnn", units) > 0
    assert steps_of_build.launch_seconds("dnn", units) > 0
    net = plain_nets.net("dnn", F, D, adapted=True)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    steps_plainly.loop(net, units, None)
    assert all(not torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
