"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from alignkit.paths import given_path


def path_argument(help: str) -> Any:
    """An argument DIRECTORY."""
    return typer.Argument(parser=_path_of("DIRECTORY"), metavar="DIRECTORY", help=help)


def path_option(name: str, help: str, *, metavar: str = "DIRECTORY") -> Any:
    """An option that is a path."""
    return typer.Option(name, parser=_path_of(name), metavar=metavar, help=help)


def _path_of(what: str) -> Callable[[str], Path]:
    return lambda text: given_path(text, what=what)


StudyArgument = Annotated[str, typer.Argument(help="A study file (TOML), or the name of a shipped study.")]
DirectoryArgument = Annotated[Path, path_argument("A directory that `alignkit run` wrote.")]
DataOption = Annotated[
    str | None, typer.Option("--data", help="A folder of image Parquet files, in place of the study's data.")
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="A smaller version of the study that its file declares.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core, one on a GPU.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
