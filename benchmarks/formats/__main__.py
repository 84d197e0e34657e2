"""Have engines write a log, ingest what they wrote, and write the table of docs/your-log.md from the verdicts.

    python -m benchmarks.formats                         all engines: new fixtures, verdicts, and an export read by each
    python -m benchmarks.formats --engines polars,duckdb only these
    python -m benchmarks.formats --fixtures-only         the verdicts on the committed fixtures; needs no engine
    python -m benchmarks.formats docs                    the tables of the page, from the verdicts

The first two need the network (each engine is installed in an environment of its own, one after another, and deleted again), up to 2 GB of
disk at a time, and a Java for Spark. Verdicts go to benchmarks/results/formats.json, what engines wrote to tests/logs/formats/data.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.common.tables import parsed
from benchmarks.formats.environments import ENGINES, HOME, Environment
from benchmarks.formats.exports import compared, export
from benchmarks.formats.page import PAGE, RESULT, page
from benchmarks.formats.result import EngineResult, ExportResult, Matrix
from benchmarks.formats.verdicts import DATA, engine_result, engines


def judged() -> dict[str, EngineResult]:
    """The verdicts on the committed fixtures, in the order of the tables."""
    found = {path.name: engine_result(path) for path in engines()}
    return {name: found[name] for name in ENGINES if name in found}


def write_and_read(names: list[str]) -> dict[str, ExportResult]:
    """Make the environment of each engine, and replace its fixtures. Returns what those that read exports make of one."""
    found = {}
    with tempfile.TemporaryDirectory() as work:
        exported = export(Path(work))
        for name in names:
            print(name, flush=True)
            with Environment(name, Path(work)) as environment:
                written = environment.write()
                shutil.rmtree(DATA / name, ignore_errors=True)
                shutil.copytree(written, DATA / name)
                shutil.rmtree(written)
                if ENGINES[name].reads:
                    columns = compared(exported, environment.read(exported))
                    found[name] = ExportResult(columns=columns)
    shutil.rmtree(HOME, ignore_errors=True)
    return found


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=["run", "docs"], default="run")
    parser.add_argument("--engines", default=",".join(ENGINES), help="names of engines, separated by commas")
    parser.add_argument("--fixtures-only", action="store_true", help="judge what engines wrote before")
    options = parser.parse_args()
    if options.task == "docs":
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    exports = dict((parsed(Matrix, RESULT) or Matrix()).exports)
    if not options.fixtures_only:
        exports |= write_and_read(options.engines.split(","))
    in_order = {name: exports[name] for name in ENGINES if name in exports}
    RESULT.write_text(Matrix(engines=judged(), exports=in_order).model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
