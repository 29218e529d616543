"""Verdicts on the machine, from its facts."""

from __future__ import annotations

from functools import partial

from engine.doctor.findings import Finding
from engine.doctor.machine_facts import MachineFacts, RunDirectory

#: Share of the cores that the estimate and the load average may reach.
_CPU_SHARE_MAX = 0.8
#: Bytes that should be free on the run directory's disk, for logs.
DISK_FREE_MIN = 200 * 2**20

_finding = partial(Finding, "machine")


def verdicts(facts: MachineFacts, cameras: int, need_cores: float, *, running: bool) -> list[Finding]:
    """All findings about the machine; ``need_cores`` is the estimate for all cameras."""
    return [
        shared_memory(facts.shared_need, facts.shared_free, facts.shared_directory),
        files(facts.files_max, facts.files_need, cameras),
        clock(facts.clock_synchronised),
        cpu(facts.load, facts.cores, need_cores, running=running),
        run_directory(facts.run),
        disk(facts.run),
    ]


def shared_memory(need: int, free: int | None, directory: str) -> Finding:
    """Room for the site's rings."""
    good = f"{_mib(need)} for the rings"
    if free is None:
        return _finding(
            "shared memory", "broken", f"{directory} is not a directory", good, "set ring.directory, or mount it"
        )
    bad = need > free
    return _finding(
        "shared memory", "broken" if bad else "ok", f"{_mib(free)} in {directory} for this site", good,
        f"mount -o remount,size={need // 2**20 + 64}m {directory} (docker: shm_size), or lower ring.capacity_mb or "
        "video.capacity_mb" if bad else "",
    )  # fmt: skip


def files(limit: int, need: int, cameras: int) -> Finding:
    """Files that one process may have open, by its hard limit."""
    bad = 0 <= limit < need
    shown = "unlimited" if limit < 0 else f"{limit:,}"
    return _finding(
        "open files", "broken" if bad else "ok", f"limit {shown}", f"at least {need:,} for {cameras} cameras",
        f"ulimit -n {need} or more; LimitNOFILE in systemd, ulimits in docker" if bad else "",
    )  # fmt: skip


def clock(synchronised: bool | None) -> Finding:
    """Whether timestamps are comparable with those of other machines."""
    good = "the kernel's clock follows a time server"
    if synchronised is None:
        return _finding("clock", "information", "cannot be told here", good)
    if synchronised:
        return _finding("clock", "ok", "synchronised", good)
    return _finding(
        "clock", "warning", "not synchronised: timestamps drift against other machines", good,
        "turn on chrony or systemd-timesyncd (in a container or virtual machine, on its host)",
    )  # fmt: skip


def cpu(load: float, cores: int, need_cores: float, *, running: bool) -> Finding:
    """The load of the last minute. If the site does not run yet, the cameras' estimate is added."""
    wanted = load + (0 if running else need_cores)
    bad = wanted > cores * _CPU_SHARE_MAX
    found = f"load {load:.2f} on {cores} cores; estimate for the cameras {need_cores:.2f}"
    return _finding(
        "CPU", "warning" if bad else "ok", f"{found} (in the load)" if running else found,
        f"together at most {cores * _CPU_SHARE_MAX:.1f}",
        "lower fps or size, let cameras send MJPEG, decode key frames only (decode = \"key\"), or move other work away"
        if bad else "",
    )  # fmt: skip


def run_directory(run: RunDirectory) -> Finding:
    """The directory of locks, sockets and logs: private to this user."""
    good = "writable, and readable by this user only (0700)"
    if not run.writable:
        return _finding(
            "run directory",
            "broken",
            f"{run.path} cannot be written",
            good,
            "correct its rights, or set site.run_directory",
        )
    if not run.private:
        return _finding(
            "run directory",
            "broken",
            f"{run.path} is open to others, or belongs to another user",
            good,
            f"chmod 700 {run.path}",
        )
    return _finding("run directory", "ok", f"{run.path}" if run.stands else f"will be created below {run.path}", good)


def disk(run: RunDirectory) -> Finding:
    """Space for logs and, with persistence, the append-only file."""
    bad = run.free_bytes < DISK_FREE_MIN
    return _finding(
        "disk", "warning" if bad else "ok", f"{_mib(run.free_bytes)} free where {run.path} is",
        f"at least {_mib(DISK_FREE_MIN)}", "make room, or set site.run_directory" if bad else "",
    )  # fmt: skip


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
