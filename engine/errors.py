"""Errors, as a tree by what the caller can do about them.

* ``InputError``: a person must change a file, a flag or the machine; the command ends with exit code 2.
* ``Unavailable``: something outside is away; wait and try again.
* ``WireError``: these bytes are not what they claim to be; skip them and say which part is wrong.
* ``RingError``: shared memory cannot be used as it is.
"""

from __future__ import annotations

#: Everything asked for was done.
EXIT_OK = 0
#: The engine gave up or could not finish in time; the log says what stopped it.
EXIT_FAILED = 1
#: The input (file, flags, servers named in it, machine) must be changed first; nothing was started.
EXIT_INPUT = 2
#: A query was answered, and there is nothing that fits it.
EXIT_NOTHING = 3


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""

    exit_code = EXIT_FAILED


class InputError(EngineError):
    """Something that only a person can mend: the message says what, where, and the way out."""

    exit_code = EXIT_INPUT


class ConfigError(InputError):
    """The site file is missing, unreadable, or says something that cannot be."""


class SiteInUse(InputError):
    """Another live process holds the site's run directory, one of its roles, or its names in Redis."""


class QueryError(InputError, ValueError):
    """A question that cannot be: a reversed range, a naive time, a malformed key."""


class UnknownName(InputError, LookupError):
    """No camera or tenant of that name has anything stored; the message has the nearest known name."""


class NoSpace(InputError):
    """Shared memory is too small for the site's rings."""


class ServerRefused(InputError):
    """A server was reached (or found missing at start) and will not serve this site as configured."""


class Unavailable(EngineError):
    """A server or camera is away or not answering; trying again later can help."""


class RedisUnavailable(Unavailable):
    """Redis closed the connection, did not answer in time, or asked to be tried again."""


class BrokerUnavailable(Unavailable):
    """RabbitMQ closed the connection or channel, or did not answer in time."""


class CameraUnavailable(Unavailable):
    """A camera refused, hung, ended, or sent something that is no video."""


class WireError(EngineError, ValueError):
    """Bytes or text that do not parse; the message names the part."""


class RingError(EngineError):
    """A ring file cannot be used."""


class RingMismatch(RingError):
    """The ring file is of another version, size or camera, or is damaged."""


class FrameTooLarge(RingError):
    """A frame does not fit in half its ring; raise ``ring.capacity_mb``."""
