from __future__ import annotations

from engine.shm.fence import new_fence


def test_a_fence_can_be_passed_again_and_again():
    """Its order cannot be seen on x86-64; that it never blocks can."""
    fence = new_fence()
    for _ in range(1000):
        fence()


def test_fences_know_nothing_of_each_other():
    one, other = new_fence(), new_fence()
    one()
    other()
    one()
