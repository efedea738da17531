"""A PostgreSQL server of the suite's own: in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from pipecat_bridge.tools.load.bridge import free_ports

SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "postgresql.sh"

USER: Final = "postgres"
"""The server refuses to run as root. Debian's package makes this user."""


def is_installed() -> bool:
    """Whether Debian's package is there."""
    return Path("/usr/lib/postgresql").exists()


class PostgreSQL:
    """One server. `url` is that of a database in it, the same after each start."""

    def __init__(self) -> None:
        where = subprocess.run([SCRIPT], check=True, stdout=subprocess.PIPE, text=True)
        self._programs = Path(where.stdout.split()[-1])
        self._folder = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
        [self._port] = free_ports(1)
        self.url = f"postgresql://{USER}@127.0.0.1:{self._port}/postgres"
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "--auth=trust", "--no-sync", f"--username={USER}", "-D", self._data)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        user = USER if os.geteuid() == 0 else None
        subprocess.run(command, check=True, user=user, cwd=self._folder, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-D", self._data, "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once: its clients lose their connections."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop the server if it runs, and remove all of it."""
        if (Path(self._data) / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)
