"""What the publisher makes of what stands in Redis, or answers in its place."""

from __future__ import annotations

import pytest

from engine.errors import RedisUnavailable
from engine.stages.publisher.journals import Journals
from engine.wire.marks import Mark
from tests.fuzz.replies import ADDRESS, CURSOR, NANO, Connection, answering
from tests.fuzz.seeds import resp


@pytest.mark.parametrize("stored", [b"", b"\xff\xfe", b"nonsense", b"5", b"%d-1" % 2**64, b"9" * 5000])
def test_a_cursor_that_is_none_is_not_there(stored: bytes) -> None:
    with answering(resp([b"cam1", stored, b"cam2", CURSOR.encode() + b" 5 77"])) as plug:
        cursors = journals(plug).cursors()
    assert (cursors.marks, cursors.serials) == ({"cam2": Mark((NANO, 7), 5)}, {b"77"})


@pytest.mark.parametrize("reply", [5, [[b"a stream", []]], [b"", b""], [[b"engine:v:journal:frames:cam1", []]]])
def test_a_reply_of_another_shape_is_redis_being_away(reply: object) -> None:
    with (
        answering(resp(reply)) as plug,
        pytest.raises(RedisUnavailable, match=r"redis.invalid:6379 broke the connection: it answered .* to XREAD"),
    ):
        journals(plug).read({"cam1": (NANO, 1)}, 10)


def journals(plug) -> Journals:
    made = Journals(ADDRESS, 1, "v", "frames", ["cam1", "cam2"])
    made._session._connection = Connection(plug)
    return made
