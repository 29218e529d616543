"""Alerts as JSON: in the file that the monitor writes beside the rings, in the API, and in messages.

The file holds the newest state of each alert: those that are raised, and those that were cleared last, so that a reader
that looks now and then, such as the publisher, also sees the end of an alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from engine.errors import WireError
from engine.wire.rfc3339 import rfc3339

Severity = Literal["warning", "critical"]
AlertPhase = Literal["raised", "cleared"]
#: Characters of a text or an advice; of a name or a subject (a camera's id may have more).
TEXT_CHARACTERS_MAX = 400
NAME_CHARACTERS_MAX = 300
#: States in one file: an alert for each of many cameras, and as many that were cleared.
STATES_MAX = 1000
#: Bytes of a file with that many states: four bytes a character, and the names of the fields.
FILE_BYTES_MAX = STATES_MAX * (4 * (2 * TEXT_CHARACTERS_MAX + 2 * NAME_CHARACTERS_MAX) + 300)

_Text = Annotated[str, Meta(max_length=TEXT_CHARACTERS_MAX)]
_Name = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
_Nano = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class AlertKey(NamedTuple):
    """Identifies an alert: the rule's name, and what it is about, such as a camera's id."""

    name: str
    subject: str


class AlertState(msgspec.Struct, frozen=True, gc=False):
    """The newest state of one alert. ``since_nano`` (UTC) is when it was raised, or cleared. ``value`` and
    ``threshold`` have the unit of the rule; ``text`` says both in a sentence, ``advice`` what to do."""

    name: _Name
    subject: _Name
    severity: Severity
    state: AlertPhase
    since_nano: _Nano
    value: float
    threshold: float
    text: _Text
    advice: _Text = ""

    @property
    def key(self) -> AlertKey:
        """What identifies the alert across its states."""
        return AlertKey(self.name, self.subject)

    @property
    def change(self) -> tuple[str, int]:
        """What an event of this state announces. Another value of the same state is not announced again."""
        return self.state, self.since_nano


class Alert(msgspec.Struct, frozen=True, gc=False):
    """A raised alert, for people: in ``status`` and in the API."""

    name: str
    subject: str
    severity: Severity
    since_nano: int
    value: float
    threshold: float
    text: str
    advice: str


class AlertEvent(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="alert"):
    """Announces that an alert was raised or cleared. Field order is the wire order. ``timestamp`` is RFC 3339 with nine
    digits and Z; ``timestamp_nano`` is the same in nanoseconds since the epoch, UTC."""

    site: str
    name: str
    subject: str
    severity: Severity
    state: AlertPhase
    timestamp: str
    timestamp_nano: int
    value: float
    threshold: float
    text: str


_encoder = msgspec.json.Encoder()
_states_decoder: msgspec.json.Decoder[list[AlertState]] = msgspec.json.Decoder(
    Annotated[list[AlertState], Meta(max_length=STATES_MAX)]
)
_event_decoder = msgspec.json.Decoder(AlertEvent)


def encode_states(states: Sequence[AlertState]) -> bytes:
    """The content of the monitor's file; at most STATES_MAX states."""
    return _encoder.encode(states)


def decode_states(text: bytes) -> list[AlertState]:
    """Inverse of encode_states. Raises WireError."""
    try:
        return _states_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(f"alerts: {error}") from None


def raised(states: Sequence[AlertState]) -> list[Alert]:
    """The alerts among ``states`` that are raised; critical ones first, then the oldest."""
    found = [
        Alert(one.name, one.subject, one.severity, one.since_nano, one.value, one.threshold, one.text, one.advice)
        for one in states
        if one.state == "raised"
    ]
    return sorted(found, key=lambda alert: (alert.severity != "critical", alert.since_nano, alert.name, alert.subject))


def encode_alert_event(site: str, state: AlertState) -> bytes:
    """The message that announces a state."""
    return _encoder.encode(
        AlertEvent(
            site,
            state.name,
            state.subject,
            state.severity,
            state.state,
            rfc3339(state.since_nano),
            state.since_nano,
            state.value,
            state.threshold,
            state.text,
        )
    )


def decode_alert_event(body: bytes) -> AlertEvent:
    """Inverse of encode_alert_event. Raises WireError."""
    try:
        return _event_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(f"alert: {error}") from None
