"""`diet-ray completion`: shell completion of commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script

from diet_ray.cli.group import Options, app

# From here on the process answers completion requests of the shell, which are in the variable _DIET_RAY_COMPLETE.
completion_init()


class Shell(StrEnum):
    """The shells for which there is a script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@app.command()
def completion(
    ctx: typer.Context, shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")]
) -> None:
    """Print the completion script of a shell, for commands and options; no file is changed.

    Example: diet-ray completion bash >> ~/.bashrc
    """
    options: Options = ctx.obj
    script = get_completion_script(prog_name="diet-ray", complete_var="_DIET_RAY_COMPLETE", shell=shell.value)
    options.result({"shell": shell.value, "script": script}, script)
