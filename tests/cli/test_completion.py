"""The shell's questions, asked as bash asks them."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app

SCRIPTS = sysconfig.get_path("scripts")


def completed(words: str, tmp_path: Path) -> list[str]:
    """What bash offers for the last of the words, by the script that the command prints."""
    # The script registers the function that bash calls; here it is called by hand, with the variables that bash would set.
    script = CliRunner().invoke(app, ["completion", "bash"]).stdout
    name = next(line.split("(")[0].strip() for line in script.splitlines() if line.endswith("() {"))
    words = f'COMP_WORDS=({words} ""); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()'
    ask = f'{words}; {name} diet-ray; printf "%s\n" "${{COMPREPLY[@]}}"'
    file = tmp_path / "ask.sh"
    file.write_text(f"{script}\n{ask}\n", encoding="utf-8")
    env = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(file)], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    commands = completed("diet-ray", tmp_path)
    assert {"ingest", "distill", "sweep", "completion"} <= set(commands)
    assert set(completed("diet-ray completion", tmp_path)) == {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script_that_asks_the_command(shell: str) -> None:
    script = CliRunner().invoke(app, ["completion", shell]).stdout
    assert f"_DIET_RAY_COMPLETE=complete_{shell}" in script
    found = json.loads(CliRunner().invoke(app, ["--json", "completion", shell]).stdout)
    assert found == {"shell": shell, "script": script.rstrip("\n")}


def test_another_shell_is_refused() -> None:
    result = CliRunner().invoke(app, ["completion", "csh"])
    assert result.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in " ".join(result.stderr.replace("│", " ").split())
