"""When access units and pictures are shown, from the times in a stream and the arrival of its packets.

A stream has two times for each packet: when it is decoded (dts) and when it is shown (pts). With B-frames, packets come
in the order of decoding, and pictures are shown in another. Both times count from a moment that only the camera knows,
and may jump, go back, or be missing. All times here are nanoseconds.
"""

from __future__ import annotations

from collections import deque

#: A change of the delay from a packet's time to its arrival that means: the stream counts from another moment.
_JUMP_NANO = 1_000_000_000
#: How far apart pictures are put that would be shown before a first one whose time is unknown, and how long after that
#: one a next one is shown that others may come before: 32 pictures have room.
_APART_NANO = 100_000
_ROOM_NANO = 32 * _APART_NANO
#: How far the second field of a picture is shown behind the first: offsets are told in whole microseconds.
_FIELD_NANO = 1_000
#: Share of the passed time by which the least delay may rise: clocks differ by less.
_CREEP = 1 / 5000
#: Share of the stream's time by which it may fall: pictures keep their order, also behind the packets that FFmpeg holds
#: back while it opens a stream.
_FALL = 1 / 8
#: The furthest that a picture is shown from its packet's arrival.
_OFFSET_NANO_MAX = 10_000_000_000
#: The most pictures that a decoder holds back: 16 frames, or as many pairs of fields.
_HELD_MAX = 32
#: The same where no pts tells which pictures were lost: their stamps would be given to later ones.
_HELD_WITHOUT_PTS_MAX = 4


class PresentationClock:
    """Tells for each access unit of a stream when it is shown.

    The network delays packets by different times. The packet that was delayed least shows how the stream's times and
    arrivals correspond. That correspondence follows slowly if the least delay rises, because the camera's clock may run
    slower than ours, and less slowly if it falls. It begins anew where the times jump by more than a second, go back or
    are missing.
    """

    def __init__(self) -> None:
        #: The least delay from a packet's time to its arrival; None until one is known.
        self._delay: int | None = None
        #: True while no dts was below its pts. FFmpeg learns only from the first packets how far pictures are
        #: reordered, and until then its dts is the pts, is missing or is wrong.
        self._guessed = False
        self._last_dts: int | None = None
        self._last_arrival = 0
        #: The latest pts since the delay was known.
        self._last_pts = 0
        #: When the last packet without a pts was shown. FFmpeg may begin with one; B-frames come behind it.
        self._floor = 0
        #: The last packet's pts, and when it is shown.
        self._pts: int | None = None
        self._shown = 0

    def offset(self, arrival: int, pts: int | None, dts: int | None) -> int:
        """When the packet that arrived at ``arrival`` is shown: nanoseconds after its arrival, or before if negative.

        Without B-frames it is how much less than others the packet was delayed: near 0.
        """
        if pts is None:
            self._delay = self._last_dts = self._pts = None
            self._floor = arrival
            return 0
        if dts is not None and dts > pts:
            dts = None
        known = self._delay
        ahead = dts is not None and dts < pts
        passed = dts - self._last_dts if dts is not None and self._last_dts is not None else 0
        back = passed < 0 and not (self._guessed and ahead)
        if dts is not None:
            self._last_dts = dts
        delay = arrival - (pts if dts is None else dts)
        if known is None or back or abs(delay - known) > _JUMP_NANO:
            known = delay + max(self._floor + _ROOM_NANO - arrival, 0)
            self._guessed, self._last_pts = not ahead, pts
        elif self._guessed and ahead:
            # Pictures that come later are shown later than all before, so those keep their order.
            if pts > self._last_pts:
                known, self._guessed = delay, False
        elif dts is not None:
            known = max(min(delay, known + int((arrival - self._last_arrival) * _CREEP)), known - int(passed * _FALL))
        self._last_pts = max(self._last_pts, pts)
        self._delay, self._last_arrival = known, arrival
        offset = known + pts - arrival
        if abs(offset) > _OFFSET_NANO_MAX:
            return 0
        if arrival + offset <= self._floor:
            self._floor += _APART_NANO
            offset = self._floor - arrival
        if pts == self._pts:
            offset = max(offset, self._shown + _FIELD_NANO - arrival)
        self._pts, self._shown = pts, arrival + offset
        return offset


class PictureStamps:
    """Time stamps of decoded pictures, strictly increasing.

    Packets arrive in the order of decoding, pictures come in the order in which they are shown: the n-th picture gets
    the n-th smallest time stamp of arrival. A picture that is lost in the decoder leaves its stamp behind. The pts
    shows that: what would have been shown before the picture in hand does not come any more.
    """

    def __init__(self) -> None:
        #: Of the packets whose pictures are awaited: the stamps, and each pts.
        self._stamps: deque[int] = deque()
        self._times: list[int | None] = []
        self._last = 0

    def sent(self, pts: int | None, stamp: int) -> None:
        """A packet that arrived at ``stamp`` goes to the decoder."""
        if len(self._stamps) >= _HELD_MAX:
            self._drop()
        self._stamps.append(stamp)
        self._times.append(pts)

    def take(self, pts: int | None) -> int:
        """The stamp of the next picture."""
        stamp = self._last + 1
        if pts is not None and pts in self._times:
            place = self._times.index(pts)
            left = [time for number, time in enumerate(self._times) if _is_later(time, number, pts, place)]
            for _ in range(len(self._times) - len(left)):
                stamp = self._stamps.popleft()
            self._times = left
        elif self._stamps:
            while len(self._stamps) > _HELD_WITHOUT_PTS_MAX:
                self._drop()
            stamp = self._drop()
        self._last = max(stamp, self._last + 1)
        return self._last

    def _drop(self) -> int:
        """Remove the packet that was sent first; returns the smallest stamp."""
        self._times.pop(0)
        return self._stamps.popleft()

    def clear(self) -> None:
        """Forget what is awaited: the decoder was emptied."""
        self._stamps.clear()
        self._times.clear()


def _is_later(time: int | None, place: int, pts: int, shown: int) -> bool:
    """True if a packet's picture is still to come when that of packet ``shown`` has come."""
    if time is None:
        return place > shown
    return time > pts or (time == pts and place > shown)
