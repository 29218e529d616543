"""The description of what flows: films, live video, live pictures."""

from __future__ import annotations

from engine.web import openapi_parts as parts
from engine.web.frames import WIDTH_MAX, WIDTH_MIN
from engine.web.streams import FPS_MAX
from engine.web.video import FILM_SECONDS_MAX

_FILM = {
    "description": "Fragmented MP4.",
    "headers": {
        "X-Video-Codec": {
            "description": "The codec as Media Source names it, such as `avc1.64001f`; `jpeg` for a film of JPEGs; "
            "empty if it has no name.",
            "schema": {"type": "string"},
        },
        "X-Video-Start-Nano": {
            "description": "The time stamp of the first picture, in nanoseconds since the epoch.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
    },
    "content": {"video/mp4": {}},
}
#: The paths whose answers do not end by themselves.
ENDLESS = ("/api/v1/cameras/{camera}/live.mp4", "/api/v1/cameras/{camera}/stream.mjpeg")
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/video.mp4": parts.get(
        "A camera's stored video, undecoded, from the key frame at or before a time on.",
        {200: _FILM},
        parameters=[
            parts.camera_in_path(),
            parts.time_of("start", "The time of the first picture; so long ago as the film lasts by default."),
            parts.span_of("duration", f"At most {FILM_SECONDS_MAX} s; a minute by default."),
            parts.flag_of("download", "Have browsers store it as a file."),
        ],
        problems=[404, 422, 503],
        tag="streams",
    ),
    "/api/v1/cameras/{camera}/live.mp4": parts.get(
        "A camera's video as it is stored, from the newest key frame on, without end.",
        {200: _FILM},
        parameters=[parts.camera_in_path()],
        problems=[404, 406, 503],
        tag="streams",
    ),
    "/api/v1/cameras/{camera}/stream.mjpeg": parts.get(
        "A camera's frames as they are stored, without end. A slow reader skips frames.",
        {200: {"description": "One part a frame.", "content": {"multipart/x-mixed-replace": {}}}},
        parameters=[
            parts.camera_in_path(),
            parts.number_of("fps", 1, FPS_MAX, "Frames a second at most."),
            parts.number_of("width", WIDTH_MIN, WIDTH_MAX, "Scale pictures down to this many pixels."),
        ],
        problems=[404, 409, 422, 503],
        tag="streams",
    ),
}
