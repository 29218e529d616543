"""Which embedded servers of a site run."""

from __future__ import annotations

from engine.config import Config
from engine.runtime import server_process
from engine.runtime.embedded_layout import standing


def running_pids(config: Config) -> list[int]:
    """The process ids of the servers that run, of any layout. Raises InputError if a lock file cannot be opened."""
    found = []
    for files in standing(config.run_directory):
        if server := server_process.find(files.lock, 0):
            server.close()
            found.append(server.pid)
    return found
