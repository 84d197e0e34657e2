"""What the tests share: one local Ray cluster for the whole run, and the place of the real logs."""

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports Ray: it reads these once.
os.environ["RAY_AUTH_MODE"] = "disabled"  # or ray.init writes a token into the home folder
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"  # a dead worker is noticed ten times sooner than by default
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process per worker group, for clouds that take nodes back
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling; or what runs beside a test has its workers wait
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
# Ray's workers import functions of the tests by module name.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # the coming default; unset, every Ray worker warns


# What a script, a terminal or a scheduler leaves to its children is no part of a test: a shell lets what it starts in the background ignore
# Ctrl-C, and how wide tables are depends on the terminal.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, set())
os.environ |= {"COLUMNS": "80", "LINES": "25", "OMP_NUM_THREADS": "1"}  # processes share the cores already
for _name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "RAY_ADDRESS"):
    os.environ.pop(_name, None)


LONGEST_FIRST = (
    "project/test_docs.py",
    "project/test_jobs.py",
    "cli/test_commands.py",
    "engine/test_train.py",
    "engine/test_sweep_driver.py",
    "judge/fidelity/test_bench.py",
    "cli/test_local.py",
    "engine/test_many_nodes.py",
    "engine/test_faults.py",
    "distill/test_bytes.py",
    "judge/test_trackers.py",
)
"""Files that take minutes. A long file that begins last would leave the other processes of xdist with nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others keep their order."""
    tests = Path(__file__).parent
    place = {str(tests / name): number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(str(item.path), len(place)))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[int]:
    """One Ray cluster of 4 logical CPUs for the whole run; gives that number. Shut down, with all it wrote, at the end."""
    import ray
    from ray.data import DataContext

    home = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths, which may have 107 characters
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=512 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(home / "ray"),
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield 4
    ray.shutdown()
    if before is None:
        del os.environ["HOME"]
    else:
        os.environ["HOME"] = before
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real logs: `DIET_RAY_DATA`, by default `../shared/data` beside the checkout. Skips without it."""
    folder = Path(os.environ.get("DIET_RAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real logs: {folder} is no folder (set DIET_RAY_DATA)")
    return folder


@pytest.fixture(scope="session")
def kuairand_dir(data_dir: Path) -> Path:
    """The folder of the KuaiRand-Pure files, 14 days. Skips without it."""
    folder = data_dir / "kuairand_pure_14d"
    if not folder.is_dir():
        pytest.skip(f"no KuaiRand log: {folder} is no folder")
    return folder


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules, and what they register, are forgotten afterwards."""
    from diet_ray.candidates import architectures

    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("diet_ray.candidates.registry._REGISTRY", architectures())
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """HOST:PORT of a server that speaks S3, to which the AWS environment leads meanwhile."""
    from tests.support.object_store import served

    with served() as place:
        yield place


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of four blocks, to be read only."""
    from tests.support.synthetic import write_log

    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=4, n=300)


@pytest.fixture(scope="session")
def finished(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three stages over `log`, by the engine without Ray, to be read only."""
    from tests.support.small_run import config, local_run

    return local_run(tmp_path_factory.mktemp("finished") / "run", config(log))
