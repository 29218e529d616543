from __future__ import annotations

import contextlib
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.rfc3339 import NANO, parse_rfc3339, rfc3339
from tests.examples import examples
from tests.wire.names import unix_nanos

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
#: Seconds from the year 1 to the year 9999.
seconds = st.integers(-62_135_596_800, 253_402_300_799)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)


def text_of(unix_second: int, fraction: str, offset_minutes: int) -> str:
    local = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=unix_second, minutes=offset_minutes)
    sign = "-" if offset_minutes < 0 else "+"
    hours, minutes = divmod(abs(offset_minutes), 60)
    return f"{local.isoformat()}{fraction and '.'}{fraction}{sign}{hours:02}:{minutes:02}"


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("2024-11-08T14:30:00.123456789Z", 1731076200123456789),
        ("2024-11-08t14:30:00.123456789z", 1731076200123456789),
        ("2024-11-08 14:30:00.123456789Z", 1731076200123456789),
        ("2024-11-08T11:30:00.123456789-03:00", 1731076200123456789),
        ("2024-11-08T20:00:00.123456789+05:30", 1731076200123456789),
        ("2024-11-08T14:30:00Z", 1731076200000000000),
        ("2024-11-08T14:30:00.5Z", 1731076200500000000),
        ("2024-11-08T14:30:00.000000001Z", 1731076200000000001),
        ("2024-11-08T14:30:00-00:00", 1731076200000000000),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-02-29T00:00:00Z", 1709164800000000000),
        ("2000-02-29T23:59:59Z", 951868799000000000),
        # Leap seconds, as section 5.8 shows them: the second after 59.
        ("1990-12-31T23:59:60Z", 662688000000000000),
        ("1990-12-31T15:59:60-08:00", 662688000000000000),
        ("2016-12-31T23:59:60.5Z", 1483228800500000000),
    ],
)
def test_timestamps_of_the_standard_and_the_page(text, nano):
    assert parse_rfc3339(text) == nano


@settings(max_examples=examples(300), deadline=None)
@given(unix_nanos)
def test_every_stamp_of_a_key_survives(nano):
    text = rfc3339(nano)
    assert parse_rfc3339(text) == nano
    assert len(text) == len("2024-11-08T14:30:00.123456789Z")
    exact = EPOCH + datetime.timedelta(microseconds=nano // 1000)
    assert text == f"{exact:%Y-%m-%dT%H:%M:%S.%f}{nano % 1000:03}Z"


@settings(max_examples=examples(300), deadline=None)
@given(
    seconds.filter(lambda second: abs(second) < 62_135_000_000),
    st.text(alphabet="0123456789", max_size=9),
    offsets,
    st.sampled_from("Tt "),
)
def test_any_offset_and_fraction_is_exact(second, fraction, offset, separator):
    text = text_of(second, fraction, offset).replace("T", separator)
    assert parse_rfc3339(text) == second * NANO + int(fraction.ljust(9, "0"))


@settings(max_examples=examples(300), deadline=None)
@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_what_python_writes_is_read_as_python_means_it(moment):
    exact = (moment - EPOCH) // datetime.timedelta(microseconds=1) * 1000
    assert parse_rfc3339(moment.isoformat()) == exact
    assert parse_rfc3339(f"{moment.replace(tzinfo=None).isoformat()}Z") == exact


@settings(max_examples=examples(200), deadline=None)
@given(unix_nanos, unix_nanos)
def test_texts_sort_as_their_times_do(one, other):
    assert (rfc3339(one) < rfc3339(other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1731076200123456789", "2024-11-08", "14:30:00Z", "2024-11-08T14:30Z", "2024-11-08T14:30:00"),
        *("2024-11-08T14:30:00+0300", "2024-11-08T14:30:00+03", "2024-11-08T14:30:00.Z", "2024-11-08T14:30:00,5Z"),
        *("2024-11-08T14:30:00.1234567890Z", "2024-11-8T14:30:00Z", "24-11-08T14:30:00Z", "20240-11-08T14:30:00Z"),
        *(" 2024-11-08T14:30:00Z", "2024-11-08T14:30:00Z ", "2024-11-08T14:30:00Z\n", "2024-11-08_14:30:00Z"),
        *("٢٠٢٤-11-08T14:30:00Z", "2024-11-08T14:30:00.５Z", "2024-11-08T14:30:00−03:00", "-024-11-08T14:30:00Z"),
        *("2024-W45-5T14:30:00Z", "20241108T143000Z"),
    ],
)
def test_what_is_no_timestamp_is_refused_with_an_example(text):
    with pytest.raises(WireError, match="is not RFC 3339, such as 2024"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    "date", ["2024-00-08", "2024-13-08", "2024-11-00", "2024-11-31", "2023-02-29", "1900-02-29", "0000-01-01"]
)
def test_a_day_that_no_year_has_is_refused(date):
    with pytest.raises(WireError, match=f"timestamp '{date}T00:00:00Z'"):
        parse_rfc3339(f"{date}T00:00:00Z")


@pytest.mark.parametrize(
    "time", ["24:00:00Z", "23:60:00Z", "23:59:61Z", "99:00:00Z", "00:00:00+24:00", "00:00:00-00:60"]
)
def test_a_time_that_no_day_has_is_refused(time):
    with pytest.raises(WireError, match="names a time that no day has"):
        parse_rfc3339(f"2024-11-08T{time}")


@settings(max_examples=examples(300), deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="0123456789-:.TtZz+ ", min_size=18, max_size=36))
def test_of_any_text_only_a_wire_error_comes_out(text):
    with contextlib.suppress(WireError):
        assert isinstance(parse_rfc3339(text), int)
