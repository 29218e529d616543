"""The states of the writer's connection to Redis, and every transition between them.

    away ──pause over──> connecting ──connected──> settling ──settled──> storing
      ^                      │                      │   ^                 │ │
      └────────broke─────────┴──────────broke───────┤   └──rings changed──┘ │
                                                    │                       │
      (broke leads to away from everywhere)      refusing <────refused──────┘
                                                    └──pause over──> settling

Pure: the caller reports each change as an event. An event that a state does not list is an error in the engine.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """The current state of the connection."""

    #: No connection; the next try waits for its pause.
    AWAY = auto()
    #: A try to connect is running.
    CONNECTING = auto()
    #: The connection works. Before frames are stored, Redis is asked which of the frames in doubt it has.
    SETTLING = auto()
    #: Frames are stored.
    STORING = auto()
    #: Redis answers, but refuses writes (out of memory, loading, read only); the next try waits for its pause.
    REFUSING = auto()


class Event(Enum):
    """A change that affects the connection."""

    #: The pause before the next try has passed.
    PAUSE_OVER = auto()
    #: Redis has answered over a new connection.
    CONNECTED = auto()
    #: All doubts that can be settled now are settled.
    SETTLED = auto()
    #: Rings were added, removed or made again; their frames may be in doubt.
    RINGS_CHANGED = auto()
    #: Redis is there but refuses writes now.
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
        # A server that refuses may be turning into a replica of another one, and then loses the frames that the other
        # never had. So it is asked again which frames it has before anything is stored.
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
    """The state that ``event`` leads to. Raises WrongEvent if the table has none."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise WrongEvent(f"{event.name} in state {state.name}") from None
