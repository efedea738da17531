"""A real Asterisk for the tests, with a folder and ports of its own, on loopback only."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from tests.asterisk.ami import Ami
from tests.asterisk.process import Program

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT / ".asterisk" / "root"
EXAMPLES = PROJECT / "etc" / "asterisk"
CONFIG = Path(__file__).with_name("config")
RTP_PORTS = 400


class PbxError(Exception):
    """Asterisk is not there, or did not start."""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port on loopback that nobody has at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_range(size: int) -> int:
    """The first of `size` free UDP ports in a row, below those that the kernel gives out."""
    for first in range(12_000 + os.getpid() % 40 * 400, 32_000 - size, size):
        try:
            for port in (first, first + size // 2, first + size - 1):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise PbxError("no free range of UDP ports for RTP")


@dataclass
class Pbx:
    """Asterisk while it runs. Paths of its own (`inside`) begin at `ROOT`."""

    folder: Path
    ami_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    sip_port: int = field(default_factory=lambda: free_port(socket.SOCK_DGRAM))
    rtp_port: int = field(default_factory=lambda: free_range(RTP_PORTS))
    ami: Ami = field(init=False)
    _process: Program | None = field(init=False, default=None)
    _boot_lines: int = field(init=False, default=0)

    @classmethod
    def prepare(cls) -> Pbx:
        """Lay out a folder with a configuration; raises `PbxError` without an Asterisk."""
        if not (ROOT / "usr/sbin/asterisk").exists():
            raise PbxError(f"no Asterisk in {ROOT}: run make asterisk (scripts/asterisk.sh) first")
        if os.geteuid() != 0:
            raise PbxError("chroot needs root: run the Asterisk suite as root")
        pbx = cls(Path(tempfile.mkdtemp(prefix="suite-", dir=ROOT / "srv")))
        for name in ("lib/keys", "spool", "run", "log", "takes"):
            (pbx.folder / name).mkdir(parents=True)
        pbx._configure()
        return pbx

    def inside(self, path: Path) -> str:
        """`path` as Asterisk sees it."""
        return f"/{path.relative_to(ROOT)}"

    def _configure(self) -> None:
        """Debian's own configuration, and over it the suite's, which includes etc/asterisk."""
        shutil.copytree(ROOT / "etc" / "asterisk", self.folder / "etc")
        shutil.copytree(EXAMPLES, self.folder / "etc" / "examples")
        modules = next(ROOT.glob("usr/lib/*/asterisk/modules"))
        values = {
            "folder": self.inside(self.folder),
            "modules": self.inside(modules),
            "ami_port": self.ami_port,
            "http_port": self.http_port,
            "sip_port": self.sip_port,
            "rtp_port": self.rtp_port,
            "rtp_end": self.rtp_port + RTP_PORTS - 1,
        }
        for source in CONFIG.glob("*.conf"):
            text = source.read_text()
            for key, value in values.items():
                text = text.replace(f"{{{key}}}", str(value))
            (self.folder / "etc" / source.name).write_text(text)

    async def start(self) -> None:
        """Run Asterisk until it is fully booted; raises `PbxError` when it ends before."""
        config = self.inside(self.folder / "etc" / "asterisk.conf")
        arguments = ["chroot", str(ROOT), "/usr/sbin/asterisk", "-f", "-C", config]
        self._process = process = Program.run(arguments)
        self.ami = await self._connect(process)
        await self.ami.action("Login", Username="suite", Secret="suite", Events="on")
        await self.ami.event(lambda event: event["Event"] == "FullyBooted")
        self._boot_lines = len(self._log())

    async def _connect(self, process: Program) -> Ami:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.ami_port)
        for _ in range(300):
            try:
                return await connectProtocol(endpoint, Ami())
            except ConnectError:
                await deferLater(reactor, 0.1)
            if not process.running:
                break
        raise PbxError(f"Asterisk did not start: {process.printed.decode(errors='replace')}")

    async def stop(self) -> None:
        """End Asterisk and remove its folder."""
        if self._process is not None:
            await self._process.stop()
        shutil.rmtree(self.folder)

    def problems(self) -> list[str]:
        """The warnings and errors in Asterisk's log since it was fully booted."""
        return self._log()[self._boot_lines :]

    def _log(self) -> list[str]:
        return (self.folder / "log" / "problems").read_text(errors="replace").splitlines()
