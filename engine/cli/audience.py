"""Who reads this command's errors. That depends on how the command was given its servers."""

from __future__ import annotations

from engine.errors import Audience, explain

_audience = Audience.SITE


def explain_to(audience: Audience) -> None:
    """Word errors of this process for ``audience`` from now on. The default is a reader with a site file."""
    global _audience  # noqa: PLW0603 - a process runs one command
    _audience = audience


def explained(error: BaseException) -> str:
    """The text of an error, with advice for this command's reader."""
    return explain(error, _audience)
