"""All embedded servers of a site, as the supervisor starts, watches and ends them: one, or a local cluster."""

from __future__ import annotations

from engine.config import Config
from engine.errors import InputError
from engine.runtime.embedded import EmbeddedServer
from engine.runtime.embedded_layout import kept_counts, layout, standing


class EmbeddedServers:
    """The servers in a site's run directory. The caller of ``start``, ``restart``, ``stop`` and ``clean`` holds the
    site's lock."""

    def __init__(self, config: Config, *, outlives: bool = True) -> None:
        self._config = config
        self._outlives = outlives
        self._servers = [EmbeddedServer(config, files, outlives=outlives) for files in layout(config)]

    @property
    def adopted(self) -> list[EmbeddedServer]:
        """The running servers that an earlier supervisor started."""
        return [server for server in self._servers if server.adopted]

    @property
    def replaced(self) -> list[str]:
        """Why servers could not be adopted and were replaced."""
        return [server.replaced for server in self._servers if server.replaced]

    def start(self) -> None:
        """Adopt the servers that a killed supervisor left, start the others; wait until all answer.

        Raises InputError if one does not start, and for servers or append-only files of another number of servers. Then
        only adopted servers run.
        """
        self._refuse_other_layouts()
        try:
            for server in self._servers:
                server.begin()
            for server in self._servers:
                server.finish()
        except BaseException:
            for server in self._servers:
                if not server.adopted:
                    server.stop(keep_log=True)
            raise

    def exited(self) -> list[EmbeddedServer]:
        """The servers that were running and have ended."""
        return [server for server in self._servers if server.exited()]

    def leave(self) -> None:
        """Close the handles of the servers; they keep running."""
        for server in self._servers:
            server.leave()

    def stop(self) -> None:
        """End all servers. With persistence they write their files first, and these are kept."""
        for server in self._servers:
            server.begin_stop()
        for server in self._servers:
            server.stop()

    def clean(self) -> tuple[list[int], int]:
        """End the servers that a killed supervisor left, of any layout, and remove all files but append-only ones.
        Returns their process ids, and how many frames they held, -1 if unknown."""
        found = [server.clean() for server in _of_any_layout(self._config) + self._servers]
        found = [(pid, held) for pid, held in found if pid]
        return [pid for pid, _ in found], _sum([held for _, held in found])

    def _refuse_other_layouts(self) -> None:
        """Raises InputError if servers run, or append-only files lie, that belong to another number of servers: they
        have other slots, so their frames would not be found."""
        directory, count = self._config.run_directory, self._config.redis.embedded_servers
        others = [server for server in _of_any_layout(self._config) if server.files.servers != count]
        running = [server for server in others if server.look()]
        if running:
            held = _sum([server.frames() for server in running])
            pids = ", ".join(str(server.pid) for server in running)
            former = running[0].files.servers
            for server in running:
                server.leave()
            raise InputError(
                f"embedded servers of a former run with redis.embedded_servers = {former} still run (pid {pids}) and "
                f"hold {held if held >= 0 else 'an unknown number of'} frames; set it to {former} again to continue "
                f"with them, or end them with edge-video clean, which loses their frames"
            )
        kept = kept_counts(directory) - {count}
        if self._config.redis.persistence == "aof" and kept:
            raise InputError(
                f"{directory} has append-only files of redis.embedded_servers = {min(kept)}, which {count} servers do "
                f"not read; set it to {min(kept)} again, or remove {_data_of(self._config, min(kept))}"
            )


def _of_any_layout(config: Config) -> list[EmbeddedServer]:
    return [EmbeddedServer(config, files) for files in standing(config.run_directory)]


def _data_of(config: Config, count: int) -> str:
    where = config.run_directory
    return f"{where}/appendonlydir" if count == 1 else f"{where}/redis-*-of-{count}"


def _sum(held: list[int]) -> int:
    """The sum of counts; -1 if one of them is unknown."""
    return -1 if any(count < 0 for count in held) else sum(held)
