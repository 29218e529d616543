"""A site's last counts: its shared memory is removed when it ends, and stays readable for who has it mapped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

from engine.shm.ring_file import Observer, RingCounts
from engine.shm.status_page import PublisherCount, StatusPage
from tests.system.site import Site

#: Counts by camera, and how many events have expired.
Final = tuple[dict[str, RingCounts], int]


@contextlib.contextmanager
def final_counts(site: Site, *, publishes: bool, without: Collection[str] = ()) -> Iterator[Callable[[], Final]]:
    """Opened while the site runs, called once it has ended; ``without`` are cameras whose ring cannot be read."""
    paths = site.paths
    with contextlib.ExitStack() as stack:
        observers = {
            camera.id: stack.enter_context(contextlib.closing(Observer(paths.ring(camera.id), camera.id)))
            for camera in site.config.cameras
            if camera.id not in without
        }
        pages = paths.publishers().values() if publishes else ()
        publishers = [stack.enter_context(contextlib.closing(StatusPage.watch(page))) for page in pages]
        yield lambda: (
            {camera: observer.counts() for camera, observer in observers.items()},
            sum(publisher.counts[PublisherCount.EXPIRED] for publisher in publishers),
        )
