"""Resources of this machine."""

from __future__ import annotations

import psutil

from engine.config import Config


def embedded_memory(config: Config) -> int:
    """Bytes that the embedded server may use: its ``maxmemory``."""
    return int(psutil.virtual_memory().total * config.redis.max_memory_percent // 100)
