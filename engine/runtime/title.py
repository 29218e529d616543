"""The titles of the engine's processes, as ``ps`` shows them."""

from __future__ import annotations

import contextlib

import setproctitle

#: The beginning of all titles.
_TITLE = "edge-video"


def set_title(role: str, site: str = "") -> None:
    """Show the process as ``edge-video: site: role``. This hides command line and environment with their secrets.

    Without ``site``, the site of the current title is kept: a fork has its parent's title.
    """
    before = ""
    # The title is still the command line, which may have any bytes.
    with contextlib.suppress(UnicodeDecodeError):
        before = setproctitle.getproctitle().rpartition(": ")[0]
    head = f"{_TITLE}: {site}" if site else before if before.startswith(_TITLE) else _TITLE
    setproctitle.setproctitle(f"{head}: {role}")
