"""The files on which the nets of a user depend, and what their import may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from diet_ray.candidates import import_modules, sources


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def names(folder: Path, modules: list[str]) -> list[str]:
    import_modules(modules, folder)
    return [path.relative_to(folder).as_posix() for path in sources(modules)]


BROKEN = "try:\n    import help_b\nexcept SyntaxError:\n    pass"


@pytest.mark.parametrize(
    ("files", "helpers"),
    [
        ({"nets_a.py": "import torch\nimport diet_ray\nimport json"}, []),
        ({"nets_a.py": "import help_b", "help_b.py": "import help_c, torch", "help_c.py": ""}, ["help_b", "help_c"]),
        ({"nets_a.py": "import help_b", "help_b.py": "import nets_a", "help_c.py": ""}, ["help_b"]),
        ({"nets_a.py": "def late():\n    from help_b import x", "help_b.py": "x = 1"}, ["help_b"]),
        ({"nets_a.py": BROKEN, "help_b.py": "1 +"}, ["help_b"]),
        (
            {"nets_a.py": "import p.q.c", "p/__init__.py": "", "p/q/c.py": "from .. import d", "p/d.py": ""},
            ["p/__init__", "p/d", "p/q/c"],
        ),
        ({"nets_a.py": "from r import c", "r/c.py": "from .d import x", "r/d.py": "x = 1"}, ["r/c", "r/d"]),
    ],
)
def test_the_users_own_modules_are_found_however_they_are_imported(
    user_code: Path, files: dict[str, str], helpers: list[str]
) -> None:
    write(user_code, files)
    assert names(user_code, ["nets_a"]) == ["nets_a.py", *(f"{helper}.py" for helper in helpers)]


def test_of_a_named_module_in_a_package_the_package_counts(user_code: Path) -> None:
    write(
        user_code,
        {"pack_e/__init__.py": "", "pack_e/nets.py": "from pack_e.layers import x", "pack_e/layers.py": "x = 1"},
    )
    assert names(user_code, ["pack_e.nets"]) == ["pack_e/nets.py", "pack_e/__init__.py", "pack_e/layers.py"]


def test_an_installed_package_is_the_users_only_where_it_is_named(
    user_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = user_code / "lib" / "site-packages"
    write(
        installed,
        {
            "pack_f/__init__.py": "import pack_g",
            "pack_f/nets.py": "from . import layers",
            "pack_f/layers.py": "",
            "pack_g.py": "",
        },
    )
    write(user_code, {"nets_h.py": "import pack_g"})
    monkeypatch.syspath_prepend(str(installed))
    assert names(user_code, ["nets_h"]) == ["nets_h.py"]
    assert names(installed, ["pack_f.nets"]) == ["pack_f/nets.py", "pack_f/__init__.py", "pack_f/layers.py"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise ValueError('\\udce9')", r"ValueError: \\udce9"),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "E: its text cannot be made: E"),
    ],
)
def test_an_import_that_ends_the_process_is_named(user_code: Path, code: str, why: str) -> None:
    write(user_code, {"nets_i.py": code})
    with pytest.raises(ValueError, match=rf"module 'nets_i' cannot be imported, .*\({why}\)"):
        import_modules(["nets_i"], user_code)


def test_what_an_import_changes_is_put_back_but_the_environment(
    user_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIET_RAY_OF_A_NET", "0")
    write(
        user_code,
        {
            "nets_j.py": "import os, torch\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\nos.environ['DIET_RAY_OF_A_NET'] = '1'"
        },
    )
    import_modules(["nets_j"], user_code)
    assert torch.get_default_dtype() == torch.float32
    assert Path.cwd() == user_code
    assert os.environ["DIET_RAY_OF_A_NET"] == "1"
