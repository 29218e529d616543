"""Who reads this command's errors: it depends on where the command got its servers from."""

from __future__ import annotations

from engine.errors import Audience, explain

_audience = Audience.SITE


def explain_to(audience: Audience) -> None:
    """Errors of this process are shown to ``audience`` from now on; at first, to someone with a site file."""
    global _audience  # noqa: PLW0603 - a process runs one command
    _audience = audience


def explained(error: BaseException) -> str:
    """The text of an error, with advice for this command's reader."""
    return explain(error, _audience)
