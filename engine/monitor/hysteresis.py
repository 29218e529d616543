"""From measured values to alerts: a pure state machine.

An alert is raised when its value has been at or above the threshold for ``for_seconds``. It is cleared when its value
has been below a lower bound, a share of the threshold, for ``clear_seconds``. Between the two it stays as it is. So a
value that crosses the threshold often raises its alert once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.config import AlertsSection
from engine.monitor.facts import Facts
from engine.monitor.rules import RULES, Reading, Rule
from engine.wire.alert import NAME_CHARACTERS_MAX, STATES_MAX, TEXT_CHARACTERS_MAX, AlertKey, AlertState

#: Seconds after which a raised alert's value and text are brought up to date. No event is sent for that.
_REFRESH_SECONDS = 10.0
#: Cleared alerts that are remembered, so that a reader that looks now and then sees the end of each.
_CLEARED_MAX = STATES_MAX // 2
#: The largest value that is told; JSON has no infinity.
_VALUE_MAX = 1e15


class Alerts:
    """The alerts of a site. ``states`` may come from a former process: what was raised stays raised.

    Times: ``now`` in ``judge`` is monotonic seconds, ``now_nano`` is UTC nanoseconds and only written down.
    """

    def __init__(
        self, section: AlertsSection, states: Sequence[AlertState] = (), rules: Sequence[Rule] = RULES
    ) -> None:
        self._section = section
        self._rules = [rule for rule in rules if rule.threshold(section) > 0]
        self._on = {rule.name for rule in self._rules}
        #: The newest state of each alert, in the order of their last changes. Alerts of rules that are off by now are
        #: cleared by the first look.
        self._states = {one.key: one for one in states}
        #: When a value first called for the other state; when a raised alert was last brought up to date.
        self._since: dict[AlertKey, float] = {}
        self._refreshed: dict[AlertKey, float] = {}

    @property
    def states(self) -> list[AlertState]:
        """The newest state of each alert: all that are raised, and the last ones that were cleared."""
        return list(self._states.values())

    def judge(self, facts: Facts, now: float, now_nano: int) -> list[AlertState]:
        """Take new facts; returns the alerts that were raised or cleared by them."""
        changes: list[AlertState] = []
        seen: set[AlertKey] = set()
        for rule in self._rules:
            for reading in rule.measure(facts):
                key = AlertKey(rule.name, reading.subject[:NAME_CHARACTERS_MAX])
                seen.add(key)
                if change := self._judge(rule, key, reading, now, now_nano):
                    changes.append(change)
        for key, state in list(self._states.items()):
            if state.state == "raised" and key not in seen:
                # Its camera or process is no longer part of the site, or its threshold is 0 now.
                text = f"{key.subject} is no longer watched" if key.name in self._on else f"{key.name} is turned off"
                changes.append(
                    msgspec.structs.replace(state, state="cleared", since_nano=now_nano, text=text, advice="")
                )
        for change in changes:
            self._states.pop(change.key, None)
            self._states[change.key] = change
        for times in (self._since, self._refreshed):
            for key in times.keys() - seen:
                # A camera that comes back is judged anew.
                del times[key]
        self._forget()
        return changes

    def _judge(self, rule: Rule, key: AlertKey, reading: Reading, now: float, now_nano: int) -> AlertState | None:
        """The change of one alert, if there is one."""
        state = self._states.get(key)
        if reading.value is None:
            self._since.pop(key, None)
            return None
        threshold = rule.threshold(self._section)
        value = round(min(reading.value, _VALUE_MAX), 3)
        raised = state is not None and state.state == "raised"
        lower = threshold * rule.clear_share
        # A rule that is cleared by 0 only has no value below its lower bound.
        asks = (value < lower or value == 0) if raised else value >= threshold
        if not asks:
            self._since.pop(key, None)
            if raised and state is not None and now >= self._refreshed.get(key, now) + _REFRESH_SECONDS:
                self._refreshed[key] = now
                self._states[key] = msgspec.structs.replace(state, value=value, text=reading.text[:TEXT_CHARACTERS_MAX])
            elif raised:
                self._refreshed.setdefault(key, now)
            return None
        since = self._since.setdefault(key, now)
        if now - since < (self._section.clear_seconds if raised else rule.for_seconds):
            return None
        del self._since[key]
        self._refreshed[key] = now
        if raised:
            self._refreshed.pop(key)
            return AlertState(
                key.name, key.subject, rule.severity, "cleared", now_nano, value, threshold,
                reading.cleared[:TEXT_CHARACTERS_MAX],
            )  # fmt: skip
        return AlertState(
            key.name, key.subject, rule.severity, "raised", now_nano, value, threshold,
            reading.text[:TEXT_CHARACTERS_MAX], rule.advice,
        )  # fmt: skip

    def _forget(self) -> None:
        """Keep the number of states within its bound; the oldest cleared ones go first, then the oldest."""
        cleared = [key for key, state in self._states.items() if state.state == "cleared"]
        for key in cleared[: max(len(cleared) - _CLEARED_MAX, 0)]:
            del self._states[key]
        cleared = cleared[-_CLEARED_MAX:]
        while len(self._states) > STATES_MAX:
            key = cleared.pop(0) if cleared else next(iter(self._states))
            del self._states[key]
