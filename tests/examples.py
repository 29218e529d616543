"""How many examples Hypothesis tries.

A property that is broken mostly shows within its first dozens of examples, and each run tries others. So a run tries a
quarter of what a test names, and all of it with ``HYPOTHESIS_PROFILE=thorough`` in the environment.
"""

from __future__ import annotations

import os

_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
#: Fewer than this are not worth the start.
_EXAMPLES_MIN = 50


def examples(thorough: int) -> int:
    """The number of examples of a test that tries ``thorough`` of them where time does not matter."""
    return thorough if _THOROUGH else min(thorough, max(thorough // 4, _EXAMPLES_MIN))
