"""JPEGs as cv2 writes them, and hands that take them apart."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def pixels(width: int, height: int, *, gray: bool = False, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with some noise: (height, width) or (height, width, 3) BGR."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if gray else (height, width, 3)
    ramp = np.linspace(0, 200, height * width).reshape(height, width)
    base = ramp if gray else ramp[:, :, None]
    return np.clip(base + rng.integers(0, 40, shape), 0, 255).astype(np.uint8)


def encode(width: int, height: int, *options: int, gray: bool = False, seed: int = 0) -> bytes:
    """A JPEG with cv2's ``options`` (flag, value, flag, value, …)."""
    good, data = cv2.imencode(".jpg", pixels(width, height, gray=gray, seed=seed), list(options))
    assert good
    return data.tobytes()


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture's pixels, channels as they are."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None, "cv2 cannot decode it"
    return np.asarray(picture, np.uint8)


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """(marker, whole segment) of each segment from behind SOI up to the first scan, which comes last with all the rest
    behind it."""
    assert data[:2] == b"\xff\xd8"
    found, at = [], 2
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at : at + size]))
        at += size
    return [*found, (0xDA, data[at:])]


def join(parts: list[tuple[int, bytes]]) -> bytes:
    """Inverse of segments."""
    return b"\xff\xd8" + b"".join(segment for _, segment in parts)


def huffman_tables(data: bytes) -> dict[int, bytes]:
    """Class and number of a table -> its lengths and values, from all DHT segments before the first scan."""
    tables = {}
    for marker, segment in segments(data):
        body = segment[4:] if marker == 0xC4 else b""
        while body:
            size = 17 + sum(body[1:17])
            tables[body[0]] = body[1:size]
            body = body[size:]
    return tables
