"""Options that several commands have in common are lists, and this adds a list to a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]


def add_options(command: Command, options: Sequence[Option]) -> Command:
    """The command with the options, which `--help` shows in their order."""
    for option in reversed(options):
        command = option(command)
    return command
