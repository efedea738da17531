"""What hostile peers stand on: plain sockets, in a process of their own, for some seconds."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple
from urllib.request import urlopen
from uuid import UUID, uuid4

from tests.hostile import plain

Mode = Literal["dialback", "twilio"]
PAUSE: Final = 0.02
"""Seconds before a peer tries again when the bridge has closed its connection."""

_NICE: Final = 10
"""A hostile peer is another machine, and must not take the processor from those that it attacks."""


class Ports(NamedTuple):
    """Where a daemon and its runner listen, all on the loopback interface."""

    phone: int
    dialback: int
    api: int
    runner: str


class OverError(Exception):
    """The peer's time is over."""


class Wire:
    """A socket of a hostile peer. Ends with OverError when the time is over, and with OSError when
    the bridge has closed it."""

    sent = 0
    """Bytes that all of them have sent, as far as the bridge's kernel took them."""

    def __init__(self, sock: socket.socket, give_up: float) -> None:
        self.socket = sock
        self._give_up = give_up
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def left(self) -> float:
        """Seconds that are left. Raises OverError."""
        left = self._give_up - time.monotonic()
        if left <= 0:
            raise OverError
        return left

    def send(self, data: bytes) -> None:
        """Send all, however long the bridge does not read."""
        view = memoryview(data)
        while view:
            self.socket.settimeout(self.left())
            try:
                sent = self.socket.send(view)
            except TimeoutError:
                raise OverError from None
            view = view[sent:]
            Wire.sent += sent

    def flood(self, block: bytes) -> None:
        """Send `block` again and again. Never returns."""
        while True:
            self.send(block)

    def wait(self, seconds: float) -> None:
        """Do nothing. Raises OverError."""
        time.sleep(min(seconds, self.left()))

    def receive(self) -> bytes:
        """What has come. Raises OSError if the bridge has closed."""
        self.socket.settimeout(self.left())
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise OverError from None
        if not data:
            raise ConnectionError("closed by the bridge")
        return data

    def head(self) -> bytes:
        """What comes until an empty line."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        return data

    def drain(self) -> None:
        """Read from now on and throw it away, beside what this peer does."""
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        with suppress(OSError, OverError):
            while True:
                self.receive()

    def close(self) -> None:
        """Close."""
        self.socket.close()


class Attack:
    """The means of a hostile peer. `give_up`: when its time is over, on the monotonic clock."""

    def __init__(self, ports: Ports, mode: Mode, give_up: float) -> None:
        self.ports = ports
        self._mode = mode
        self._give_up = give_up
        self._made: list[Any] = []
        self.connections = 0

    def over(self) -> bool:
        """The time is over."""
        return time.monotonic() >= self._give_up

    def wire(self, port: int) -> Wire:
        """A connection to a port of the bridge."""
        sock = socket.create_connection(("127.0.0.1", port), 10.0)
        return self._wire(sock)

    def _wire(self, sock: socket.socket) -> Wire:
        self._made.append(sock)
        self.connections += 1
        return Wire(sock, self._give_up)

    def phone(self, call_id: str = "") -> Wire:
        """A phone that has said its UUID, a new one if none is given."""
        wire = self.wire(self.ports.phone)
        wire.send(plain.phone(plain.UUID, UUID(call_id or str(uuid4())).bytes))
        return wire

    def bot(self, reads: bool = True, ready: bool = True, call_id: str = "") -> Wire:
        """The bot of a call, whose phone is honest unless `call_id` is that of another phone."""
        wire = self._dialled(call_id) if self._mode == "twilio" else self._dials(call_id)
        if ready and self._mode != "twilio":
            wire.send(plain.frame(plain.READY))
        if reads:
            wire.drain()
        return wire

    def bot_url(self, call_id: str = "") -> str:
        """The URL that the bot of a call dials."""
        call_id = call_id or self.honest_phone(str(uuid4()))
        url: str = self._ask(f"/url?id={call_id}")
        if not url:
            raise ConnectionError("the bridge has asked for no bot")
        return url

    def _dials(self, call_id: str) -> Wire:
        url = self.bot_url(call_id)
        wire = self._wire(plain.dial(url))
        wire.send(plain.request(url))
        if b" 101 " not in wire.head():
            raise ConnectionError("refused by the bridge")
        return wire

    def _dialled(self, call_id: str) -> Wire:
        wire = self.dialled(call_id)
        wire.send(plain.answer(wire.head()))
        return wire

    def dialled(self, call_id: str = "") -> Wire:
        """A connection that the bridge has dialled for a new call, before the handshake."""
        call_id = call_id or str(uuid4())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            self._ask(f"/bot?id={call_id}&url={url}")
            self.honest_phone(call_id)
            listener.settimeout(5.0)
            return self._wire(listener.accept()[0])

    def honest_phone(self, call_id: str) -> str:
        """Let an honest phone call, in a process of its own. Returns `call_id`."""
        process = multiprocessing.get_context("fork").Process(
            target=_talk, args=(self.ports.phone, call_id, self._give_up), daemon=True
        )
        process.start()
        self._made.append(process)
        return call_id

    def _ask(self, target: str) -> Any:
        with urlopen(self.ports.runner + target, timeout=15.0) as answer:
            return json.load(answer)

    def close(self) -> None:
        """Close all that was made, and hang up."""
        for each in self._made:
            if isinstance(each, socket.socket):
                each.close()
            else:
                each.terminate()
        self._made.clear()


def _talk(port: int, call_id: str, give_up: float) -> None:
    """An honest phone: a frame every 20 ms, and all is read that comes."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(plain.phone(plain.UUID, UUID(call_id).bytes))
        due = time.monotonic()
        while due < give_up:
            sock.sendall(plain.phone(plain.AUDIO, bytes(320)))
            due += 0.02
            while (left := due - time.monotonic()) > 0:
                if select.select([sock], [], [], left)[0] and not sock.recv(1 << 16):
                    return


Peer = Callable[[Attack], None]


class HostilePeer(NamedTuple):
    """A hostile peer: its name, what it does, and the mode of the daemon that it attacks.

    `also`: another one does nearly the same, and the short form leaves this one out.
    """

    name: str
    attack: Peer
    mode: Mode
    also: bool

    @property
    def text(self) -> str:
        """What it does, in a line."""
        return (self.attack.__doc__ or "").rstrip(".")


def table(kind: str) -> tuple[list[HostilePeer], Callable[..., Any]]:
    """A list of hostile peers, and a decorator that adds a function to it."""
    peers: list[HostilePeer] = []

    def hostile(attack: Peer | None = None, *, mode: Mode = "dialback", also: bool = False) -> Any:
        if attack is None:
            return lambda attack: hostile(attack, mode=mode, also=also)
        name = f"{kind}: {attack.__name__.replace('_', ' ')}"
        peers.append(HostilePeer(name, attack, mode, also))
        return attack

    return peers, hostile


def attack(peer: HostilePeer, ports: Ports, seconds: float) -> int:
    """Attack for so many seconds, and begin anew when the bridge closes. Returns the number of
    connections that were made."""
    means = Attack(ports, peer.mode, time.monotonic() + seconds)
    while not means.over():
        try:
            peer.attack(means)
        except OverError:
            break
        except (OSError, ValueError):
            time.sleep(PAUSE)
        means.close()
    means.close()
    return means.connections


def main(name: str, seconds: str, *ports: str) -> None:
    """The process of one hostile peer. Says how many connections it made, and bytes it sent."""
    from tests.hostile.peers import PEERS

    os.nice(_NICE)
    phone, dialback, api, runner = ports
    where = Ports(int(phone), int(dialback), int(api), runner)
    print(attack(PEERS[name], where, float(seconds)), Wire.sent, flush=True)
    os._exit(0)  # threads may still wait in a socket


if __name__ == "__main__":
    main(*sys.argv[1:])
