"""Errors, as a tree by what the caller can do about them; and their text.

* ``InputError``: a person must change a file, a flag or the machine; the command ends with exit code 2.
* ``Unavailable``: something outside is away; wait and try again.
* ``WireError``: these bytes are not what they claim to be; skip them and say which part is wrong.
* ``RingError``: shared memory cannot be used as it is.

An error states a plain fact and names a ``Cause``. The advice is added where the error is shown, in the reader's words
(``explain``). Code that must tell errors apart looks at their type and cause, never at their text.
"""

from __future__ import annotations

from typing import Self

from engine.advice import Audience as Audience  # noqa: PLC0414 - exported
from engine.advice import Cause as Cause  # noqa: PLC0414 - exported
from engine.advice import advise, name_of

#: Everything asked for was done.
EXIT_OK = 0
#: The engine gave up or could not finish in time; the log says what stopped it.
EXIT_FAILED = 1
#: The input (file, flags, servers named in it, machine) must be changed first; nothing was started.
EXIT_INPUT = 2
#: A query was answered, and there is nothing that fits it.
EXIT_NOTHING = 3


class EngineError(Exception):
    """Base of every error that the engine raises on purpose.

    ``fact`` says what is so, without secrets. ``subject`` is the server or camera that it is about. ``setting`` is the
    key of the site file that it blames. Both may be empty. ``details`` fill in the advice. ``str`` gives fact and
    advice for a script: it names parameters of the library.
    """

    exit_code = EXIT_FAILED

    def __init__(
        self, fact: object = "", *, cause: Cause = Cause.OTHER, subject: str = "", setting: str = "", **details: str
    ) -> None:
        # Pickled as its arguments and its attributes, so all but the first argument must be attributes.
        super().__init__(str(fact))
        self.fact = str(fact)
        self.cause = cause
        self.subject = subject
        self.setting = setting
        self.details = details

    def __str__(self) -> str:
        return explain(self, Audience.LIBRARY)

    def __repr__(self) -> str:
        cause = "" if self.cause is Cause.OTHER else f", cause={self.cause.name}"
        return f"{type(self).__name__}({self.fact!r}{cause})"

    @classmethod
    def of(cls, error: EngineError, fact: str = "", cause: Cause | None = None) -> Self:
        """``error`` as one of this class, because the caller can do something else about it; perhaps with another fact
        or cause."""
        made = cls(
            fact or error.fact,
            cause=error.cause if cause is None else cause,
            subject=error.subject,
            setting=error.setting,
        )
        made.details = error.details
        return made


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


def explain(error: BaseException, audience: Audience) -> str:
    """The text of an error for ``audience``: the fact, and what this reader can do about it. Errors of others show as
    themselves."""
    if not isinstance(error, EngineError):
        return str(error)
    blamed = f"{name_of(error.setting, audience)}: " if error.setting else ""
    advice = advise(error.cause, audience, error.details)
    return f"{blamed}{error.fact}{'; ' if advice else ''}{advice}"


def advice_of(error: BaseException, audience: Audience) -> str:
    """What ``audience`` can do about an error, by itself; empty where there is nothing to tell."""
    return advise(error.cause, audience, error.details) if isinstance(error, EngineError) else ""
