"""The states of the writer's connection to Redis, and every way from one to another.

    away ──pause over──> connecting ──connected──> settling ──settled──> storing
      ^                      │                      │   ^                 │ │
      └────────broke─────────┴──────────broke───────┤   └──rings changed──┘ │
                                                    │                       │
      (broke leads to away from everywhere)      refusing <────refused──────┘
                                                    └──pause over──> settling

Pure: what happens is told as an event. An event that the table does not list for a state is an error in the engine.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """What the connection is good for now."""

    #: There is none; the next try waits for its pause.
    AWAY = auto()
    #: One is being made.
    CONNECTING = auto()
    #: It works. Before frames are stored, Redis is asked what it has of those whose fate is in doubt.
    SETTLING = auto()
    #: Frames are stored.
    STORING = auto()
    #: Redis answers, but takes no writes (out of memory, loading, read only); the next try waits for its pause.
    REFUSING = auto()


class Event(Enum):
    """What happens to the connection."""

    #: The pause before the next try has passed.
    PAUSE_OVER = auto()
    #: Redis has answered over a new connection.
    CONNECTED = auto()
    #: Nothing that can be settled now is in doubt any more.
    SETTLED = auto()
    #: Rings came, went or were made anew; what they hold may be in doubt.
    RINGS_CHANGED = auto()
    #: Redis is there and takes nothing now.
    REFUSED = auto()
    #: The connection broke, or could not be made.
    BROKE = auto()


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.AWAY: {
        Event.PAUSE_OVER: State.CONNECTING,
        Event.RINGS_CHANGED: State.AWAY,
    },
    State.CONNECTING: {
        Event.CONNECTED: State.SETTLING,
        Event.RINGS_CHANGED: State.CONNECTING,
        Event.BROKE: State.AWAY,
    },
    State.SETTLING: {
        Event.SETTLED: State.STORING,
        Event.RINGS_CHANGED: State.SETTLING,
        Event.REFUSED: State.REFUSING,
        Event.BROKE: State.AWAY,
    },
    State.STORING: {
        Event.RINGS_CHANGED: State.SETTLING,
        # A server that refuses may be one that becomes another's replica, and loses what that one never had. So what
        # it still has is asked again before anything is stored.
        Event.REFUSED: State.REFUSING,
        Event.BROKE: State.AWAY,
    },
    State.REFUSING: {
        Event.PAUSE_OVER: State.SETTLING,
        Event.RINGS_CHANGED: State.REFUSING,
        Event.REFUSED: State.REFUSING,
        Event.BROKE: State.AWAY,
    },
}


class WrongEvent(RuntimeError):
    """An event that cannot happen in this state: an error in the engine, not in Redis."""


def after(state: State, event: Event) -> State:
    """The state that ``event`` leads to. Raises WrongEvent where the table has none."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise WrongEvent(f"{event.name} in state {state.name}") from None
