from __future__ import annotations

import contextlib
import datetime
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.client.times import NANO_MAX, to_nano, to_span, window
from engine.errors import QueryError
from engine.wire.rfc3339 import rfc3339
from tests.examples import examples

NOW = 1731076200123456789
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
unix_nanos = st.integers(10**18, 10**19 - 1)
longest = datetime.timedelta(hours=23, minutes=59)
whole_minutes = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda count: datetime.timedelta(minutes=count))
zones = (whole_minutes | st.timedeltas(-longest, longest)).map(datetime.timezone)
moments = st.datetimes(
    min_value=datetime.datetime(1970, 1, 3),
    max_value=datetime.datetime(2554, 7, 1),
    timezones=zones | st.just(datetime.UTC),
)


@settings(max_examples=examples(200), deadline=None)
@given(moments)
def test_a_datetime_of_any_zone_is_exact_to_the_microsecond(moment):
    nano = to_nano(moment, NOW)
    assert nano % 1000 == 0
    assert EPOCH + datetime.timedelta(microseconds=nano // 1000) == moment
    assert to_nano(moment.astimezone(datetime.UTC), NOW) == nano
    # RFC 3339 has offsets of whole minutes.
    if not moment.utcoffset() % datetime.timedelta(minutes=1):
        assert to_nano(moment.isoformat(), NOW) == nano


@settings(max_examples=examples(200), deadline=None)
@given(st.timezones(), st.datetimes(datetime.datetime(2001, 9, 10), datetime.datetime(2100, 1, 1)), st.integers(0, 1))
def test_clocks_that_are_put_back_have_each_hour_once(zone, plain, fold):
    moment = plain.replace(tzinfo=zone, fold=fold)
    nano = to_nano(moment, NOW)
    assert EPOCH + datetime.timedelta(microseconds=nano // 1000) == moment.astimezone(datetime.UTC)


@settings(max_examples=examples(200), deadline=None)
@given(unix_nanos)
def test_nanoseconds_are_taken_as_they_are_and_as_text_of_both_kinds(nano):
    assert to_nano(nano, NOW) == to_nano(str(nano), NOW) == to_nano(rfc3339(nano), NOW) == nano


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 50_000), st.sampled_from(sorted(UNITS)))
def test_an_offset_is_that_long_before_now(count, unit):
    before = NOW - count * UNITS[unit]
    if before >= 0:
        assert to_nano(f"-{count}{unit}", NOW) == before
    else:
        with pytest.raises(QueryError, match="before 1970"):
            to_nano(f"-{count}{unit}", NOW)
    assert to_span(f"{count}{unit}") == count * UNITS[unit]


def test_now_is_now():
    assert to_nano("now", NOW) == NOW


@pytest.mark.parametrize(
    ("when", "nano"),
    [
        (0, 0),
        ("0", 0),
        (NANO_MAX, NANO_MAX),
        (NOW, NOW),
        (datetime.datetime(2024, 11, 8, 14, 30, 0, 123456, datetime.UTC), 1731076200123456000),
        (
            datetime.datetime(2024, 11, 8, 11, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
            1731076200 * 10**9,
        ),
        (EPOCH, 0),
        ("2024-11-08T14:30:00.123456789Z", NOW),
        ("2024-11-08T11:30:00.123456789-03:00", NOW),
        ("2024-11-08 14:30:00z", 1731076200 * 10**9),
        ("-30s", NOW - 30 * 10**9),
        ("-1.5m", NOW - 90 * 10**9),
        ("-1ns", NOW - 1),
        (datetime.timedelta(seconds=-30), NOW - 30 * 10**9),
        (-datetime.timedelta(milliseconds=1, microseconds=1), NOW - 1_001_000),
        (datetime.timedelta(0), NOW),
    ],
    ids=str,
)
def test_times_as_people_give_them(when, nano):
    assert to_nano(when, NOW) == nano


@pytest.mark.parametrize(
    ("when", "part"),
    [
        (True, "True"),
        (False, "False"),
        (-1, "-1"),
        (NANO_MAX + 1, "not in 0"),
        (1731076200, "looks like seconds"),
        (999999999, "looks like seconds"),
        (1731076200123, "looks like milliseconds"),
        (999999999999, "looks like milliseconds"),
        (1731076200123456, "looks like microseconds"),
        (999999999999999, "looks like microseconds"),
        ("1731076200", "looks like seconds"),
        (1731076200.5, "aware datetime"),
        (None, "aware datetime"),
        (datetime.date(2024, 11, 8), "aware datetime"),
        (datetime.timedelta(seconds=30), r"in the future; .* negative: -datetime.timedelta\(seconds=30\)"),
        (datetime.timedelta(days=-365_000), "before 1970"),
        (datetime.timedelta.min, "before 1970"),
        (30, "in 1970 as nanoseconds; for an offset from now write '-30s'"),
        ("30", "in 1970 as nanoseconds"),
        (12_345_678_901, "in 1970"),
        (b"now", "aware datetime"),
        ("", "aware datetime"),
        ("NOW", "aware datetime"),
        ("+30s", "a span, not a moment; write '-30s' for so long ago"),
        ("30s", "a span, not a moment; write '-30s' for so long ago"),
        (" now", "aware datetime"),
        ("yesterday", "yesterday"),
        ("٣٠", "aware datetime"),
        ("²", "aware datetime"),
        ("2024-11-08", "aware datetime"),
        ("2024-11-08T14:30:00", "no time zone"),
        ("2024-11-08 14:30:00.5", "no time zone"),
        ("2024-13-08T14:30:00Z", "aware datetime"),
        ("1969-12-31T23:59:59.999999999Z", "before 1970"),
        ("2555-01-01T00:00:00Z", "after 2554"),
        ("-", "time '-' is not a number and a unit"),
        ("-30", "time '-30' has no unit; write '-30s' for seconds, or ms, m, h, d"),
        ("-1.5", "time '-1.5' has no unit; write '-1.5s'"),
        ("-30min", r"time '-30min' is not a number and a unit \(ns, us, ms, s, m, h, d\)"),
        ("--30s", "time '--30s'"),
        ("-0s", "time '-0s' is not positive"),
        ("-100000d", "before 1970"),
        (datetime.datetime(2024, 11, 8, 14, 30), "2024-11-08T14:30:00 is naive"),
        (datetime.datetime(1969, 12, 31, tzinfo=datetime.UTC), "before 1970"),
        (datetime.datetime.max.replace(tzinfo=datetime.UTC), "after 2554"),
        (datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=14))), "before 1970"),
    ],
    ids=str,
)
def test_what_is_no_time_is_refused_and_says_why(when, part):
    with pytest.raises(QueryError, match=part):
        to_nano(when, NOW)


@pytest.mark.parametrize(
    "text", ["9" * 5000, "-" + "9" * 5000 + "s", "-1." + "9" * 5000 + "s"], ids=["time", "offset", "fraction"]
)
def test_more_digits_than_python_reads_are_refused_too(text):
    with pytest.raises(QueryError):
        to_nano(text, NOW)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="-+.:0123456789TZnowsmhdu ", max_size=40))
def test_of_any_text_only_a_query_error_comes_out(text):
    with contextlib.suppress(QueryError):
        assert 0 <= to_nano(text, NOW) <= NANO_MAX


@settings(max_examples=examples(200), deadline=None)
@given(
    st.from_regex(r"[0-9]{1,9}\.[0-9]{1,12}", fullmatch=True).filter(lambda text: text.isascii()),
    st.sampled_from(sorted(UNITS)),
)
def test_a_fraction_of_a_unit_is_right_to_the_nanosecond(number, unit):
    exact = Fraction(number) * UNITS[unit]
    if exact < 1:
        with pytest.raises(QueryError):
            to_span(number + unit)
    else:
        assert to_span(number + unit) == exact // 1


@settings(max_examples=examples(100), deadline=None)
@given(st.timedeltas(min_value=datetime.timedelta(microseconds=1)))
def test_a_timedelta_is_exact(span):
    assert to_span(span) == (span.days * 86_400 + span.seconds) * 10**9 + span.microseconds * 1000


@pytest.mark.parametrize(
    ("span", "nano"),
    [
        (10**6, 10**6),
        (10**9, 10**9),
        ("1ns", 1),
        (datetime.timedelta(microseconds=1), 1000),
        ("500ms", 5 * 10**8),
        ("30s", 3 * 10**10),
        ("5m", 3 * 10**11),
        ("1h", 36 * 10**11),
        ("2d", 1728 * 10**11),
    ],
)
def test_spans_as_people_give_them(span, nano):
    assert to_span(span) == nano


@pytest.mark.parametrize(
    "span",
    [
        *(
            0,
            1,
            30,
            999_999,
            -1,
            1.5,
            True,
            None,
            b"1s",
            "",
            "s",
            "1",
            "-1s",
            "+1s",
            "1 s",
            "1S",
            "1w",
            "1s ",
            "1.s",
            ".5s",
            "1e3s",
            "0s",
        ),
        *("0.0000000001s", "٣s", "1s30", datetime.timedelta(0), datetime.timedelta(seconds=-1)),
    ],
    ids=repr,
)
def test_what_is_no_span_is_refused_and_shown(span):
    with pytest.raises(QueryError, match=re.escape(f"duration {span!r}")):
        to_span(span)


@pytest.mark.parametrize(("span", "way"), [(30, "'30s' or '30ms'"), ("30", "write '30s' for seconds")])
def test_a_span_without_a_unit_says_what_to_write(span, way):
    with pytest.raises(QueryError, match=way):
        to_span(span)


def test_a_window_includes_its_ends_and_none_is_open():
    assert window(None, None, NOW) == (0, NANO_MAX)
    assert window("-1s", "now", NOW) == (NOW - 10**9, NOW)
    assert window(NOW, None, NOW) == (NOW, NANO_MAX)
    assert window(None, NOW, NOW) == (0, NOW)
    assert window(NOW, NOW, NOW) == (NOW, NOW)


@settings(max_examples=examples(100), deadline=None)
@given(unix_nanos, unix_nanos)
def test_a_window_whose_end_comes_first_is_refused(one, other):
    if one <= other:
        assert window(one, other, NOW) == (one, other)
    else:
        with pytest.raises(QueryError, match=f"reversed: its end {other} is before its start {one}"):
            window(one, other, NOW)


def test_a_reversed_window_is_shown_as_it_was_given():
    with pytest.raises(QueryError, match=re.escape("its end '-30s' is before its start 'now'")):
        window("now", "-30s", NOW)
