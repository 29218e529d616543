"""Every input that is kept for a target is run again: what once broke a promise breaks none now."""

from __future__ import annotations

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS, stored


@pytest.mark.parametrize("target", TARGETS)
def test_no_kept_input_breaks_a_promise(target: str) -> None:
    inputs = {str(path): path.read_bytes() for path in stored(target)}
    assert inputs, "the corpus is kept beside this file"
    inputs |= {f"seed {number}": seed for number, seed in enumerate(seeds.seeds(target))}
    for name, data in inputs.items():
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
