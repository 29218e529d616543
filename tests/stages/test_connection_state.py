"""The states of the writer's connection: every state and every event, one by one."""

from __future__ import annotations

import pytest

from engine.stages.writer.connection_state import TRANSITIONS, Event, State, WrongEvent, after

AWAY, CONNECTING, SETTLING, STORING, REFUSING = State

#: A row for each state: where PAUSE_OVER, CONNECTED, SETTLED, RINGS_CHANGED, REFUSED and BROKE lead; None where they
#: cannot happen.
EXPECTED = {
    AWAY: (CONNECTING, None, None, AWAY, None, None),
    CONNECTING: (None, SETTLING, None, CONNECTING, None, AWAY),
    SETTLING: (None, None, STORING, SETTLING, REFUSING, AWAY),
    STORING: (None, None, None, SETTLING, REFUSING, AWAY),
    REFUSING: (SETTLING, None, None, REFUSING, REFUSING, AWAY),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_leads_where_it_must_or_is_refused(state: State, event: Event) -> None:
    expected = EXPECTED[state][list(Event).index(event)]
    if expected is None:
        with pytest.raises(WrongEvent, match=f"{event.name} in state {state.name}"):
            after(state, event)
    else:
        assert after(state, event) is expected


def test_the_table_has_every_state() -> None:
    assert TRANSITIONS.keys() == set(State)


def reachable(start: State) -> set[State]:
    found = {start}
    while more := {state for known in found for state in TRANSITIONS[known].values()} - found:
        found |= more
    return found


@pytest.mark.parametrize("state", State)
def test_from_everywhere_the_way_leads_back_to_storing_and_to_away(state: State) -> None:
    assert reachable(state) == set(State)


def test_frames_are_stored_only_after_what_was_in_doubt_is_settled() -> None:
    ways = {(state, event) for state, row in TRANSITIONS.items() for event, to in row.items() if to is STORING}
    assert ways == {(SETTLING, Event.SETTLED)}
