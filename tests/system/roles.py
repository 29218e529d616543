"""A site whose roles the real supervisord runs, each as a process of its own, from the file in ``deploy``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site

CONFIGURATION = ROOT / "deploy/supervisord.conf"


class RoleSite(Site):
    """One site file, and the supervisord that runs its roles."""

    def start(self, *arguments: str, wait: bool = True) -> None:
        assert not arguments
        configuration = self.directory / "supervisord.conf"
        configuration.write_text(self.adapted())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "supervisord"), "-c", str(configuration)],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            wait_until(self.up, 30, "all roles are up", log=self.log_text)

    def adapted(self) -> str:
        """The file of ``deploy`` with this site's paths, this machine's limits, and no user of its own."""
        places = {
            "/opt/edge-video/bin/edge-video": " ".join(COMMAND),
            "/etc/edge-video/site.toml": str(self.file),
            "/var/log/edge-video": str(self.directory),
            "/run/edge-video": str(self.directory),
        }
        text = re.sub("|".join(places), lambda found: places[found[0]], CONFIGURATION.read_text())
        text = re.sub(r"^(user|minfds|minprocs)=.*\n", "", text, flags=re.MULTILINE)
        if not self.config.alerts.enabled:
            text = text.replace("[program:monitor]\n", "[program:monitor]\nautostart=false\n")
        if not self.config.publishes:
            text = text.replace("[program:publisher]\n", "[program:publisher]\nautostart=false\n")
        return text

    def up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"supervisord ended with {self.process.returncode}:\n{self.log_text()}"
        processes = self.status()["processes"]
        wanted = len(self.config.cameras) + self.config.writer.writers + self.config.publishes
        wanted += self.config.alerts.enabled
        return sum(process["alive"] for process in processes) == wanted

    def log_text(self) -> str:
        """What supervisord and all roles have said."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def role(self, title: str) -> psutil.Process:
        """The process of supervisord's that goes by this title."""
        return next(child for child in self.children() if " ".join(child.cmdline()).strip().endswith(f": {title}"))

    def control(self, *words: str) -> str:
        """What supervisorctl says."""
        command = [str(Path(sys.executable).parent / "supervisorctl"), "-c", str(self.directory / "supervisord.conf")]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=True).stdout

    def kill_captures(self) -> None:
        """kill -9 to the process that forks the captures; wait until all are back."""
        before = {process["pid"] for process in self.status()["processes"] if process["role"] == "capture"}
        self.role("captures").send_signal(signal.SIGKILL)
        wait_until(
            lambda: not before & {each["pid"] for each in self.status()["processes"]} and self.up(), 30,
            "all captures were started again", log=self.log_text,
        )  # fmt: skip
