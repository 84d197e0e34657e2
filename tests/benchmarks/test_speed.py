"""The figures of speed in docs/results.md are those of the committed results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed import speed_table as speed

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results() -> None:
    text = speed.PAGE.read_text(encoding="utf-8")
    assert text == speed.page(text)
    assert text.count("<!-- speed: ") == text.count("<!-- end of speed -->") == 1


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    assert "Not measured yet." in speed.page(speed.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert speed.claims(tmp_path) == []


def test_claims_are_ratios_of_what_was_measured(tmp_path: Path) -> None:
    machine = speed.Machine.here()
    figures = [
        speed.bilevel.Figures(net="dnn", window=window, by=by, seconds=seconds, window_seconds=1, peak=peak, apart=0)
        for window in (20, 40)
        for by, seconds, peak in (("diet_ray", 1.0, 300), ("higher", 2.0, 400), ("autograd", 4.0, 900))
    ]
    result = speed.bilevel.Result(machine=machine, batch_size=256, steps=200, figures=figures)
    (tmp_path / "bilevel.json").write_text(result.model_dump_json(), encoding="utf-8")
    steps = dict.fromkeys(speed.plain.STEPS, 1.0)
    timings = [
        speed.plain.Timing(way=way, wall=wall, steps=steps, stages=7.0, same_bytes=True, difference=0)
        for way, wall in (("plain", 10.0), ("Ray", 16.0), ("Ray, too", 14.0))
    ]
    costs = [
        speed.plain.Cost(candidate=name, steps=n, full_cpu=8, memory_cpu=n / 100, full_auc=0.8, memory_auc=0.79)
        for name in ("fm", "dnn")
        for n in (20, 50, 200)
    ]
    case = speed.plain.Case(case="default", rows=1000, units=10, timings=timings)
    ways = speed.PlainResult(machines={"cases": machine, "costs": machine}, cases=[case], costs=costs)
    (tmp_path / "plain.json").write_text(ways.model_dump_json(), encoding="utf-8")

    found = speed.claims(tmp_path)
    assert [(one.measured, one.aim) for one in found] == [
        ("0.50, 0.75", "<= 0.25, <= 0.33"),
        ("0.50, 0.75", "<= 0.25, <= 0.33"),
        ("1.60", "<= 1.1"),
        ("1.40", "<= 1.1"),
        ("4 to 4 (-0.0100 to -0.0100) at 200 steps; 40 to 40 (-0.0100 to -0.0100) at 20 steps", ">= 60"),
    ]
    page = speed.page(speed.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert page.count(machine.processor) >= 3
    assert "### With and without Ray: default\n" in page
    assert "| autograd | 4.00 | 4.00 |" in page
    assert "### GPU" not in page


def test_a_pass_is_held_against_an_earlier_build_by_turns() -> None:
    one = speed.passes.Compared(net="dnn", other=speed.passes.OLD, ours=[1.0, 2.0, 1.0], theirs=[2.0, 2.0, 1.8])
    result = speed.passes.PassesResult(machine=speed.Machine.here(), shape="x", rows=1000, compared=[one])
    (found,) = speed.of_passes(result)
    assert (found.measured, found.aim) == ("1.80", ">= 1.8")
    assert speed.passes.table(result)[1] == [["dnn", "before", "1,000", "556", "1.80", ">= 1.8"]]


def test_a_gpu_is_held_against_the_cpu_of_its_machine() -> None:
    def part(device: str, precision: str, seconds: float) -> object:
        return speed.gpu.Part(
            what="score", device=device, precision=precision, seconds=seconds, rows=10, apart=0, measure="x"
        )

    parts = [part("cpu", "float32", 6.0), part("cuda", "float32", 2.0), part("cuda", "bfloat16", 1.0)]
    result = speed.gpu.GpuResult(machine=speed.Machine.here(), gpu="Some GPU", threads=16, parts=parts)
    found = list(speed.of_devices(result))
    assert [one.measured for one in found] == ["3.0", "6.0"]
    assert found[0].row()[-1].startswith("Some GPU; ")


def test_a_start_is_told_with_that_of_the_earlier_build() -> None:
    def one(command: str, build: str, cpu: list[float], first: list[float] | None, aim: float | None) -> object:
        return speed.start.Started(command=command, build=build, cpu=cpu, wall=cpu, first_row=first, aim=aim)

    this, earlier = speed.start.THIS, speed.start.EARLIER
    commands = [
        one("version", this, [0.2, 0.4, 0.3], None, 0.3),
        one("version", earlier, [0.6, 0.5, 0.7], None, 0.3),
        one("schema FOLDER", this, [0.8], None, 1.0),
        one("distill", this, [5.0], [3.0], None),
        one("distill, private Ray", this, [16.0], [9.0], 10.0),
        one("distill, private Ray", earlier, [34.0], [20.0], 10.0),
    ]
    result = speed.start.StartResult(machine=speed.Machine.here(), commands=commands)
    assert [(claim.measured, claim.aim) for claim in speed.of_starts(result)] == [
        ("0.30 (before 0.60)", "<= 0.3"),
        ("0.80", "<= 1"),
        ("9.00 (before 20.00)", "<= 10"),
    ]
    assert speed.start.table(result)[1][-2][-2:] == ["9.0", "<= 10 s to the first row"]


def test_words_of_a_command_become_paths() -> None:
    build = speed.start.Build("x", ["diet-ray"], None)
    paths = {"WORK": Path("/a b"), "RUN": Path("/r")}
    assert build.command("status RUN --out WORK/x.html", paths) == ["diet-ray", "status", "/r", "--out", "/a b/x.html"]
