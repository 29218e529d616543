from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RingMismatch
from engine.shm.ring_file import CONSUMER_DROPS, PRODUCER_DROPS
from engine.wire import ledger_layout
from engine.wire import ring_layout as layout
from engine.wire.journal import OFFSET_US_END
from engine.wire.ring_layout import RecordHeader
from engine.wire.ring_owner import OWNER_BYTES_MAX, show_owner
from tests.examples import examples

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
headers = st.builds(RecordHeader, U32, U32, U64, U32, U32, U32, U16, U16, U64, U64)

WORDS = {name: index for name, index in vars(layout).items() if name.startswith("W_")}
HISTOGRAM = range(layout.HISTOGRAM_WORD, layout.HISTOGRAM_WORD + layout.HISTOGRAM_BUCKETS)
#: Byte offsets of what each side writes, as the module's diagram has them.
IDENTITY, PRODUCER, CONSUMER = range(128), range(128, 384), range(384, 1024)


def page(capacity=1024, camera="cam4", generation=7, owner=b""):
    """A header page as written, with its words."""
    view = memoryview(bytearray(layout.HEADER_BYTES))
    words = view.cast("Q")
    layout.write_identity(view, words, capacity, generation, camera, owner)
    return view, words


def test_a_record_header_is_written_byte_for_byte():
    buffer = memoryview(bytearray(80))
    record = RecordHeader(layout.KIND_FRAME, 0x0A0B, 1731024000123456789, 99_999, 1280, 720, 1, 2, 3, 4)
    layout.pack_record(buffer, 8, *record)
    assert buffer[8:64].tobytes() == (
        b"FRAM" + b"\x0b\x0a\x00\x00" + b"\x15\xcd\x08!(\xd5\x05\x18" + b"\x9f\x86\x01\x00"
        + b"\x00\x05\x00\x00" + b"\xd0\x02\x00\x00" + b"\x01\x00" + b"\x02\x00"
        + b"\x03" + bytes(7) + b"\x04" + bytes(7)
    ) + bytes(8)  # fmt: skip
    assert RecordHeader._make(layout.unpack_record(buffer, 8)) == record
    layout.pack_offset(buffer, 8, -2)
    layout.pack_camera_time(buffer, 8, 0x0C0D)
    assert buffer[56:72].tobytes() == b"\xfe" + b"\xff" * 7 + b"\x0d\x0c" + bytes(6)
    assert layout.unpack_camera_time(buffer, 8) == 0x0C0D


@settings(max_examples=examples(200), deadline=None)
@given(headers, st.integers(0, 4))
def test_every_record_header_reads_back_and_stays_in_its_64_bytes(header, line):
    buffer = memoryview(bytearray(5 * layout.ALIGN))
    layout.pack_record(buffer, line * layout.ALIGN, *header)
    assert RecordHeader._make(layout.unpack_record(buffer, line * layout.ALIGN)) == header
    outside = bytearray(buffer)
    outside[line * layout.ALIGN : (line + 1) * layout.ALIGN] = bytes(layout.ALIGN)
    assert not any(outside)


def test_the_header_page_is_written_byte_for_byte():
    view, _ = page(capacity=1024, camera="câmera", generation=7)
    assert view[:40].tobytes() == (
        b"EVRING\r\n" + b"\x02" + bytes(7) + b"\x00\x04" + bytes(6) + b"\x07" + bytes(7) + b"\x80\x04" + bytes(6)
    )
    assert view[1024:1033].tobytes() == b"\x07\x00" + "câmera".encode()
    assert not any(view[40:1024])
    assert not any(view[1033:])


def test_the_kind_of_a_ring_is_the_last_word_of_its_first_64_bytes():
    for kind in (layout.STREAM_FRAMES, layout.STREAM_VIDEO):
        view = memoryview(bytearray(layout.HEADER_BYTES))
        words = view.cast("Q")
        layout.write_identity(view, words, 1024, 7, "cam4", b"", kind)
        assert view[40:64].tobytes() == bytes(16) + bytes([kind]) + bytes(7)
        assert layout.is_video(words) == (kind == layout.STREAM_VIDEO)
        assert layout.check_identity(view, words, layout.file_bytes(1024)) == (1024, "cam4")


def test_an_offset_stands_behind_a_record_s_header_and_leaves_it_as_it_is():
    buffer = memoryview(bytearray(128))
    record = RecordHeader(layout.KIND_FRAME, 9, 1731024000123456789, 99_999, 1280, 720, 1, 1, 3, 4)
    layout.pack_record(buffer, 64, *record)
    layout.pack_offset(buffer, 64, -2)
    assert buffer[112:128].tobytes() == b"\xfe" + b"\xff" * 7 + bytes(8)
    assert layout.unpack_offset(buffer, 64) == -2
    assert RecordHeader._make(layout.unpack_record(buffer, 64)) == record


@pytest.mark.parametrize(
    ("encoding", "offset_us", "video"),
    [
        (0, 0, False),
        (1, 0, True),
        (2, -5, True),
        (3, 0, False),
        (1, OFFSET_US_END - 1, True),
        (1, OFFSET_US_END, False),
        (2, -OFFSET_US_END, False),
    ],
)
def test_what_a_record_of_video_may_say_of_itself(encoding, offset_us, video):
    assert layout.describable(encoding, offset_us) is video


@settings(max_examples=examples(100), deadline=None)
@given(
    st.integers(1, 2**20).map(lambda n: n * 64),
    st.text(max_size=60),
    st.integers(0, 2**63),
    st.binary(max_size=OWNER_BYTES_MAX),
)
def test_every_header_page_reads_back(capacity, camera, generation, owner):
    view, words = page(capacity, camera, generation, owner)
    assert layout.owner_of(view) == owner
    assert layout.camera_of(view, words) == camera
    assert layout.check_identity(view, words, layout.file_bytes(capacity)) == (capacity, camera)
    assert words[layout.W_GENERATION] == generation


def test_a_camera_name_that_has_no_room_is_refused():
    assert layout.check_identity(*page(camera="é" * 255), layout.file_bytes(1024)) == (1024, "é" * 255)
    with pytest.raises(RingMismatch, match="512 bytes"):
        page(camera="é" * 256)


@pytest.mark.parametrize(
    ("word", "value", "part"),
    [
        (layout.W_MAGIC, 0, "no ring file"),
        (layout.W_VERSION, 1, "version 1"),
        (layout.W_CAPACITY, 2048, "capacity 2048"),
        (layout.W_CAPACITY, 0, "capacity 0"),
        (layout.W_AREA, 1024, "size"),
        (layout.W_HEAD, 64 * 19, "cursors"),
        (layout.W_HEAD, 32, "cursors"),
        (layout.W_TAIL, 64, "cursors"),
    ],
)
def test_a_header_that_does_not_fit_says_what(word, value, part):
    view, words = page()
    words[word] = value
    with pytest.raises(RingMismatch, match=part):
        layout.check_identity(view, words, layout.file_bytes(1024))


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(min_size=OWNER_BYTES_MAX + 2, max_size=OWNER_BYTES_MAX + 2))
def test_whatever_stands_where_the_owner_does_is_read_within_its_room(noise):
    view, words = page()
    view[layout.OWNER_OFFSET : layout.OWNER_OFFSET + len(noise)] = noise
    words[layout.HISTOGRAM_WORD] = 1
    owner = layout.owner_of(view)
    assert owner == noise[2 : 2 + len(owner)]
    assert show_owner(owner)


def test_a_name_that_is_no_utf8_is_refused():
    view, words = page()
    view[layout.CAMERA_OFFSET + 2] = 0xFF
    with pytest.raises(RingMismatch, match="name"):
        layout.check_identity(view, words, layout.file_bytes(1024))


def test_no_word_is_two_things():
    assert len(set(WORDS.values()) | set(HISTOGRAM)) == len(WORDS) + len(HISTOGRAM)


def test_no_line_is_written_by_both_sides():
    """Lines are 128 bytes, and each side's begin at multiples of that."""
    producer = {
        layout.W_HEAD,
        layout.W_LAST_NANO,
        layout.W_RECORDS,
        layout.W_NEXT_HEAD,
        layout.W_NEXT_RECORDS,
        *PRODUCER_DROPS,
    }
    producer |= {layout.W_CAPTURED, layout.W_CAPTURED_BYTES, layout.W_LARGEST}
    consumer = {
        layout.W_TAIL,
        layout.W_FLOOR_NANO,
        layout.W_LATENCY_MAX,
        layout.W_STORED,
        layout.W_STORED_BYTES,
        *CONSUMER_DROPS,
    }
    consumer |= {index for name, index in WORDS.items() if name.startswith("W_INTENT")}
    assert {index * 8 for index in producer} <= set(PRODUCER)
    assert {index * 8 for index in consumer} <= set(CONSUMER)
    assert {index * 8 for index in set(WORDS.values())} <= {*IDENTITY, *PRODUCER, *CONSUMER}


def test_all_parts_of_the_header_page_stand_apart():
    name_end = layout.CAMERA_OFFSET + 2 + layout.CAMERA_BYTES_MAX
    owner_end = layout.OWNER_OFFSET + 2 + OWNER_BYTES_MAX
    assert CONSUMER.stop <= layout.CAMERA_OFFSET < name_end <= layout.OWNER_OFFSET < owner_end <= HISTOGRAM.start * 8
    assert HISTOGRAM.stop <= ledger_layout.W_LEDGER


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 2**32))
def test_a_record_takes_its_header_its_payload_and_less_than_a_line(payload):
    assert layout.record_bytes(payload) % layout.ALIGN == 0
    assert 0 <= layout.record_bytes(payload) - layout.RECORD_HEADER_BYTES - payload < layout.ALIGN


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 2**20).map(lambda n: n * 64))
def test_the_area_holds_the_largest_frame_behind_the_longest_padding(capacity):
    need = layout.record_bytes(layout.payload_max(capacity))
    assert (need - layout.ALIGN) + need <= layout.area_bytes(capacity)
    assert layout.file_bytes(capacity) == layout.HEADER_BYTES + layout.area_bytes(capacity)
