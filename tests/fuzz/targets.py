"""All targets, by name: functions of bytes that raise only where a promise is broken. They use no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import memory, pictures, replies, stored_video, texts, video

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "access_units": video.access_units,
    "address": texts.address,
    "camera_state": texts.camera_state,
    "decoder": stored_video.decoder,
    "film": stored_video.film,
    "header_walk": pictures.header_walk,
    "journal_entry": texts.journal_entry,
    "key": texts.key,
    "leftovers": memory.leftovers,
    "message": texts.message,
    "moment": texts.moment,
    "multipart": pictures.multipart,
    "old_key": texts.old_key,
    "packets": pictures.packets,
    "picture_stamp": texts.picture_stamp,
    "publisher": replies.publisher,
    "reader": replies.reader,
    "ring": memory.ring,
    "ring_bytes": memory.ring_bytes,
    "site_file": texts.site_file,
    "status_page": memory.page,
    "stream": pictures.stream,
    "video_file": video.video_file,
    "video_reader": stored_video.video_reader,
    "video_ring": memory.video_ring,
    "writer": replies.writer,
}

HERE = Path(__file__).parent
#: Inputs that reach what others do not, and inputs that once broke a promise: a directory a target.
CORPUS, CRASHES = HERE / "corpus", HERE / "crashes"


def stored(target: str) -> list[Path]:
    """The files that are kept for a target."""
    return sorted(path for kind in (CORPUS, CRASHES) for path in (kind / target).glob("*") if path.is_file())
