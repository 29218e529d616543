"""Pictures out of multipart bodies: whatever the camera makes of the format, and wherever a read ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire import jpeg
from tests.examples import examples
from tests.servers.mjpeg_http import make_jpegs, strip_dht
from tests.stages.http_bodies import Lender, Pieces, outcomes, part

JPEGS = make_jpegs(4, (64, 48))
ENDED = "the stream ended"
CORRUPT, TOO_LARGE = "WireError", "FrameTooLarge"
#: Wherever reads end: bytes one by one, and all at once.
SIZES = [(), (1,), (7, 1, 300), (4096,)]
every_way = pytest.mark.parametrize("sizes", SIZES, ids=str)

#: Larger than a reader's buffer for heads.
LARGE = JPEGS[0][:2] + b"\xff\xfe\xea\x60" + bytes(59_998) + JPEGS[0][2:]

pieces = st.lists(st.integers(1, 40) | st.integers(1, 5000) | st.integers(1, 200_000), min_size=1, max_size=12)
pictures = st.lists(st.sampled_from([*JPEGS, LARGE]), min_size=1, max_size=6)
forms = st.fixed_dictionaries(
    {
        "boundary": st.sampled_from(["--frame", "--", "----x--y", "--a b'c"]),
        "end": st.sampled_from(["\r\n", "\n"]),
        "more": st.sampled_from(["", "X-Time: 1.5", "content-length-x: 3"]),
    }
)


@settings(max_examples=examples(300), deadline=None)
@given(pictures, forms, pieces, st.booleans(), st.booleans(), st.integers(0, 3))
def test_any_pieces_give_the_same_pictures(shown, form, sizes, direct, stated, every):
    body = b"".join(part(picture, length="" if stated else None, **form) for picture in shown)
    # The next boundary ends a part that states no length.
    body += form["boundary"].encode() + b"--\r\n\r\n"
    assert outcomes(Pieces(body, sizes, direct=direct), Lender(every)) == (shown, ENDED)


@settings(max_examples=examples(300), deadline=None)
@given(st.data(), pictures, pieces, st.booleans())
def test_damage_gives_pictures_of_the_body_or_none_the_same_in_any_pieces(data, shown, sizes, direct):
    body = bytearray(b"".join(part(picture, length=data.draw(st.sampled_from(["", None]))) for picture in shown))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 90))] = data.draw(st.binary(max_size=60) | st.just(b"\n--frame\r\n"))
    found = outcomes(Pieces(bytes(body), sizes, direct=direct))
    assert found == outcomes(Pieces(bytes(body)))
    for picture in found[0]:
        assert isinstance(picture, str) or (picture in body and picture[-2:] == b"\xff\xd9")


@every_way
@pytest.mark.parametrize("length", [None, "", -5, "many", 0, 2**40, "9" * 400, "12, 13", " "])
def test_a_length_that_cannot_be_used_is_not_used(sizes, length):
    body = b"".join(part(picture, length=length) for picture in JPEGS) + b"--frame--"
    assert outcomes(Pieces(body, sizes)) == (JPEGS, ENDED)


@every_way
@pytest.mark.parametrize("error", [-300, -3, 3, 60])
def test_a_wrong_length_costs_the_frame_that_shows_it(sizes, error):
    """What is too long by a few bytes still has the picture, and takes the next one's boundary."""
    body = b"".join(part(picture, length=len(picture) + error) for picture in JPEGS) + b"--frame--"
    found, reason = outcomes(Pieces(body, sizes))
    assert found == ([JPEGS[0], CORRUPT] if error > 2 else [CORRUPT, JPEGS[1]]) + JPEGS[2:]
    assert reason == ENDED


@every_way
def test_a_length_that_takes_in_other_pictures_yields_no_mixture(sizes):
    lengths = [len(JPEGS[0]) + len(JPEGS[1]), "", "", ""]
    body = b"".join(part(picture, length=length) for picture, length in zip(JPEGS, lengths, strict=True))
    assert outcomes(Pieces(body + b"--frame--", sizes))[0] == [CORRUPT, JPEGS[2], JPEGS[3]]


@every_way
def test_a_boundary_is_what_the_body_uses_whatever_comes_before_it(sizes):
    body = b"\r\nA camera.\nx--y\n" + b"".join(part(picture, "----other") for picture in JPEGS)
    assert outcomes(Pieces(body, sizes)) == (JPEGS, ENDED)


@every_way
@pytest.mark.parametrize("body", [b"--frame\r\nX: " + b"y" * 2**20, b"--frame\r\n" + b"X: y\r\n" * 200_000])
def test_endless_headers_end_the_stream(sizes, body):
    assert outcomes(Pieces(body, sizes)) == ([], "sends more than 8,192 bytes of headers with a picture")


@every_way
def test_a_body_without_boundaries_says_so(sizes):
    assert outcomes(Pieces(bytes(range(1, 256)) * 1000, sizes))[1].startswith("sends no boundary between its pictures")


@every_way
@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("length", ["", None])
def test_parts_that_are_too_large_are_passed_over_and_those_behind_them_are_not(sizes, every, length):
    huge = part(JPEGS[0] + bytes(Lender.frame_bytes_max), length=length)
    body = part(JPEGS[0]) + huge + part(JPEGS[1]) + huge + huge + part(JPEGS[2]) + b"--frame--"
    found, _ = outcomes(Pieces(body, sizes), Lender(every))
    assert found == [JPEGS[0], TOO_LARGE, JPEGS[1], TOO_LARGE, TOO_LARGE, JPEGS[2]]


@every_way
def test_parts_that_are_no_pictures_are_counted_one_by_one(sizes):
    others = [b'{"motion": true}', JPEGS[0][:-40], b"GIF89a"]
    body = b"".join(part(other) + part(picture) for other, picture in zip(others, JPEGS, strict=False)) + part(b"")
    expected = [outcome for picture in JPEGS[:3] for outcome in (CORRUPT, picture)]
    assert outcomes(Pieces(body, sizes)) == (expected, ENDED)


@every_way
@pytest.mark.parametrize("length", ["", None])
def test_a_picture_cut_short_by_the_end_is_none(sizes, length):
    body = b"".join(part(picture, length=length) for picture in JPEGS)
    for cut in (1, 3, 100):
        found, reason = outcomes(Pieces(body[: -cut - (2 if length == "" else 0)], sizes))
        assert (found, reason) == (JPEGS[:3], ENDED)


@every_way
@pytest.mark.parametrize("every", [0, 1])
def test_pictures_without_tables_get_them(sizes, every):
    bare = [strip_dht(picture) for picture in JPEGS]
    found, _ = outcomes(Pieces(b"".join(map(part, bare)), sizes), Lender(every))
    parts = [jpeg.standalone(memoryview(picture), jpeg.inspect(picture)) for picture in bare]
    assert found == [b"".join(picture) for picture in parts]


@pytest.mark.parametrize("settings", [{"width": 32, "height": 24}, {"encoding": "jpeg"}])
def test_pictures_that_do_not_match_the_configuration_are_encoded_again(settings):
    found, _ = outcomes(Pieces(b"".join(map(part, JPEGS))), **settings)
    assert len(found) == len(JPEGS)
    for picture, sent in zip(found, JPEGS, strict=True):
        assert picture != sent
        info = jpeg.inspect(picture)
        assert (info.width, info.height) == (settings.get("width", 64), settings.get("height", 48))
    assert outcomes(Pieces(b"".join(map(part, JPEGS))), width=64, height=48)[0] == JPEGS
