"""A daemon with an innocent call, and a hostile peer beside it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen
from uuid import UUID, uuid4

from pipecat_bridge.tools.load.bridge import daemon, free_ports
from pipecat_bridge.tools.load.run import until
from pipecat_bridge.tools.load.worker import LoadProcess
from tests.hostile import plain
from tests.hostile.innocent import PHONE_RATE, PIPECAT_RATE, Felt, Innocent
from tests.hostile.peer import HostilePeer, Mode, Ports
from tests.hostile.runner import Runner

SET_UP: Final = 20.0
"""Seconds for an innocent call to be up, while the daemon still has the last attack to work off."""

SETTLE: Final = 0.6
"""Seconds after an attack until all that was sent should have arrived."""

BETWEEN_CALLS: Final = 0.5
"""Seconds from one short honest call to the next."""

PLAY_OUT: Final = 4.0
"""Seconds after an attack until the daemon's memory is what it was."""

MOST_GROWTH: Final = 8.0
"""MB that may remain of an attack that was made before. The allocator does not give back all."""

MOST_ONCE: Final = 32.0
"""MB that may remain of an attack in all: what is bounded may stay, such as prepared calls."""


class Row(NamedTuple):
    """What a peer has done. `gap`, `raw_gap`: ms. `lost`: frames. `before`, `most`, `after`: the
    daemon's resident memory in MB. `log`: kB that were logged. `connections`: how many the peer
    made. `sent`: MB that it sent. `again`: MB that a second attack left, after the first."""

    peer: str
    gap: float
    raw_gap: float
    lost_to_bot: float
    lost_to_phone: float
    before: float
    most: float
    after: float
    log: float
    connections: int
    sent: float
    over: str
    again: float = 0.0

    @property
    def growth(self) -> float:
        """MB that the daemon has kept of all attacks of this peer."""
        return self.after - self.before


SETTINGS: Final = (
    "runner.health_interval=0",
    "runner.breaker_failures=1000000",  # hostile bots are no reason to have no others
)
"""Options of a daemon that is attacked."""


def begin_attack(peer: HostilePeer, seconds: float, ports: Ports) -> subprocess.Popen[bytes]:
    """The process of a hostile peer. It prints its connections, and the bytes that it sent.

    It should be another machine's work. So it gets what the others leave of the processors.
    """
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.hostile.peer"]
    command += [peer.name, str(seconds)]
    return subprocess.Popen([*command, *map(str, ports)], stdout=subprocess.PIPE)


class _PassersBy:
    """Short honest calls, two each second, as a daemon in use has them.

    Code that has not run for seconds takes ten times as long on some virtual machines, because
    their host has taken its memory away. Without these calls that would be most of what is
    measured: 20 to 30 ms for the end of a call, whoever ends it.
    """

    def __init__(self, mode: Mode, port: int, runner: Runner) -> None:
        self._mode = mode
        self._port = port
        self._runner = runner
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(BETWEEN_CALLS):
            with suppress(OSError):
                self._call(uuid4())

    def _call(self, call_id: UUID) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 5.0) as phone:
            phone.sendall(plain.phone(plain.UUID, call_id.bytes))
            phone.sendall(plain.phone(plain.AUDIO, bytes(320)) * 5)
            url = self._runner.dial_url(str(call_id)) if self._mode == "dialback" else ""
            if url:
                with plain.dial(url) as bot:
                    bot.sendall(plain.request(url))
                    bot.recv(1 << 12)
                    bot.sendall(plain.frame(plain.READY) + plain.frame(plain.audio(bytes(1280))))
                    bot.recv(1 << 12)
            phone.sendall(plain.phone(plain.HANGUP))

    def stop(self) -> None:
        """Make no more calls."""
        self._over.set()
        self._thread.join()


class AttackedDaemon:
    """A daemon in one mode, which all peers of that mode attack one after the other."""

    def __init__(self, mode: Mode, folder: Path) -> None:
        self._mode = mode
        self._runner = Runner()
        self._log = folder / f"{mode}.log"
        self._dialback = free_ports(1)[0]
        settings = [
            *SETTINGS,
            f"runner.mode={mode}",
            f"runner.listen=tcp:{self._dialback}:interface=127.0.0.1:backlog=1024",
        ]
        self._daemon = daemon(self._runner.url, self._log, settings=settings)
        self._innocent = LoadProcess(Innocent, self._daemon.pid, self._daemon.port)
        self._passers_by = _PassersBy(mode, self._daemon.port, self._runner)
        self.suffers = False
        """An attack has left something behind, which is no fault of the next one."""

    def warm_up(self) -> None:
        """Wait until it is ready, and make two calls."""
        self.suffers = True
        self._daemon.wait()
        for _ in range(2):
            with self._call():
                time.sleep(0.5)  # what is loaded and allocated only once
        self.suffers = False

    @contextmanager
    def _call(self) -> Iterator[str]:
        """The innocent call, as soon as phone and bot hear each other. Gives its id."""
        innocent, call_id = self._innocent, str(uuid4())
        if self._mode == "twilio":
            self._runner.add_bot(call_id, f"ws://127.0.0.1:{innocent.ask('listen')}/")
            innocent.ask("call", call_id, PHONE_RATE)
        else:
            innocent.ask("call", call_id, PIPECAT_RATE)
            url = self._runner.dial_url(call_id)
            assert url, "the bridge has asked for no bot of an innocent call"
            innocent.ask("dial", url)
        try:
            assert until(lambda: innocent.ask("talks"), SET_UP), "no innocent call is possible"
            yield call_id
        finally:
            innocent.ask("hang_up")

    def beside(self, peer: HostilePeer, seconds: float) -> Row:
        """What `peer` does in so many seconds; once more if memory has grown."""
        self.suffers = True
        row = self._once(peer, seconds)
        if row.growth <= MOST_GROWTH:
            self.suffers = bool(row.over)
            return row
        again = self._once(peer, seconds)
        worst = {name: max(getattr(row, name), getattr(again, name)) for name in Row._fields[1:5]}
        self.suffers = True
        return again._replace(
            **worst, before=row.before, over=row.over or again.over, again=again.growth
        )

    def _once(self, peer: HostilePeer, seconds: float) -> Row:
        with self._call() as call_id:
            before, logged = self._rss(), self._log.stat().st_size
            self._innocent.ask("begin")
            done, most = self._attack(peer, seconds)
            time.sleep(SETTLE)
            felt: Felt = self._innocent.ask("felt", self._shortened(call_id))
            until(lambda: self._rss() <= before + MOST_GROWTH / 2, PLAY_OUT)
            return Row(
                peer.name,
                felt.gap,
                felt.raw_gap,
                felt.to_bot,
                felt.to_phone,
                before,
                most,
                self._rss(),
                round((self._log.stat().st_size - logged) / 1e3, 1),
                *done,
                felt.over,
            )

    def _attack(self, peer: HostilePeer, seconds: float) -> tuple[tuple[int, float], float]:
        """Let the peer attack. Its connections and MB, and the most memory meanwhile."""
        daemon = self._daemon
        api = int(daemon.api.rpartition(":")[2])
        ports = Ports(daemon.port, self._dialback, api, self._runner.url)
        most = self._rss()
        with begin_attack(peer, seconds, ports) as process:
            give_up = time.monotonic() + seconds + 20.0
            while process.poll() is None:
                most = max(most, self._rss())
                time.sleep(0.1)
                if time.monotonic() > give_up:
                    process.kill()
            assert process.stdout is not None
            said = process.stdout.read().split()
        assert not process.returncode, f"the hostile peer has failed with {process.returncode}"
        connections, sent = map(int, said)
        return (connections, round(sent / 1e6, 1)), most

    def _rss(self) -> float:
        return round(self._daemon.read().rss / 1e6, 1)

    def _shortened(self, call_id: str) -> float:
        """Seconds of the bot's audio that were left out to catch up. 0 if the call is unknown."""
        try:
            with urlopen(f"{self._daemon.api}/v1/calls/{call_id}", timeout=10.0) as answer:
                record: dict[str, Any] = json.load(answer)
        except OSError:
            return 0.0
        return float(record["quality"]["shortened_ms"]) / 1000

    def stop(self) -> None:
        """End all processes."""
        self._passers_by.stop()
        self._innocent.end()
        self._daemon.stop()
        self._runner.shutdown()
        self._runner.server_close()
