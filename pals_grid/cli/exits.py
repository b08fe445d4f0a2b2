"""Errors become one line on stderr and an exit code that means something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pals_grid.core import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

UNEXPECTED = 1
USAGE = 2
BAD_INPUT = 3
NOT_FOUND = 4
UNAVAILABLE = 5

EXIT_CODES = """\b
Exit codes:
  0  done
  1  unexpected failure (a bug, or something that `doctor` names)
  2  wrong usage, or a command whose extra (train, plot) is not installed
  3  bad input, or refused
  4  not found
  5  unavailable: the service, a provider or the database does not answer
"""

CODES: Mapping[type[errors.PalsGridError], int] = {
    errors.InvalidValue: BAD_INPUT,
    errors.NotFound: NOT_FOUND,
    errors.Conflict: BAD_INPUT,
    errors.AccessDenied: BAD_INPUT,
    errors.Busy: UNAVAILABLE,
    errors.ConfigurationError: BAD_INPUT,
    errors.FeedUnavailable: UNAVAILABLE,
    errors.FeedRejected: BAD_INPUT,
    errors.FeedDataInvalid: BAD_INPUT,
    errors.LinkUnavailable: UNAVAILABLE,
    errors.LinkRejected: BAD_INPUT,
    errors.DeviceError: UNAVAILABLE,
    errors.PalsGridError: UNEXPECTED,
}


#: Packages that belong to an extra of their own; all others are the service's.
_EXTRAS: Mapping[str, str] = {
    "lightgbm": "train",
    "numpy": "train",
    "scipy": "train",
    "matplotlib": "plot",
}


class ServiceRefused(errors.PalsGridError):
    """The service answered with a problem; ``exit_code`` follows from its status.

    ``kind`` is the problem's own name, such as ``feed-rejected``; ``field`` the value that is out
    of bounds; ``retry_after_s`` how long to wait, where the service says.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "",
        field: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.field = field
        self.retry_after_s = retry_after_s
        super().__init__(message)

    @property
    def exit_code(self) -> int:
        """Exit code for the status."""
        if self.status == 404:
            return NOT_FOUND
        if 400 <= self.status < 500:
            return BAD_INPUT
        return UNAVAILABLE if self.status in {502, 503, 504} else UNEXPECTED


def exit_code_of(error: errors.PalsGridError) -> int:
    """Exit code for an error of ours."""
    if isinstance(error, ServiceRefused):
        return error.exit_code
    return next(CODES[cls] for cls in type(error).__mro__ if cls in CODES)


class Commands(click.Group):
    """A group whose commands end with our exit codes."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run, and tell an error of ours in one line."""
        try:
            return super().invoke(ctx)
        except errors.PalsGridError as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(exit_code_of(error))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("pals_grid"):
                raise
            name = (error.name or "").partition(".")[0]
            extra = _EXTRAS.get(name, "service")
            text = f"error: {name} is not installed: pip install 'pals-grid[{extra}]'"
            click.echo(text, err=True)
            ctx.exit(UNAVAILABLE if extra == "service" else USAGE)
