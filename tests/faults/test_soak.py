"""The soak, cut short: every part of it once."""

from __future__ import annotations

from pathlib import Path

from tests.faults.soak import Soak


def test_half_a_minute_of_faults(short_path: Path, capsys) -> None:
    with Soak(
        short_path, cameras=10, fps=10, kilobytes=20, seed=int.from_bytes(short_path.name.encode(), "big")
    ) as soak:
        found = soak.run(30, 5, print)
    assert sum(found["faults"].values()) >= 4
    assert found["captured"] > 10 * 10 * 20
    assert found["proved"] > 0
