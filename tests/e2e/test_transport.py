"""The eager transport on real sockets: at once while there is room, whole and in order always."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_twisted import ensureDeferred
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pipecat_bridge.net.transport import (
    EagerTransport,
    bound_send_buffer,
    plain_socket,
    set_buffers,
)
from tests.e2e.harness import reactor, sleep

FRAME = bytes(323)
SMALL = 8192
DAY = timedelta(days=1)


class Sender(Protocol):
    """The bridge's end: an eager transport, and what it told."""

    def __init__(self) -> None:
        self.opened: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.drained = 0
        self.on_drained: Callable[[], None] = lambda: None

    def connectionMade(self) -> None:
        self.out = EagerTransport(self.transport, self._drained)
        self.opened.callback(None)

    def _drained(self) -> None:
        self.drained += 1
        self.on_drained()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def fill(self, size: int = 4096) -> bytes:
        """Write numbered messages until the kernel takes no more; all that was written."""
        written = b""
        while not self.out.congested:
            piece = numbered(len(written) // size, size)
            self.out.write(piece)
            written += piece
        return written


class Reader:
    """The peer: a bare socket, which reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def now(self, size: int = 1 << 20) -> bytes:
        """What has arrived, with no turn of the reactor."""
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            return b""

    async def read(self, size: int) -> bytes:
        """So many bytes, or all up to the end of the stream."""
        data = b""
        while len(data) < size:
            try:
                piece = self.sock.recv(size - len(data))
            except BlockingIOError:
                await sleep(0)
                continue
            if not piece:
                break
            data += piece
        return data

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def numbered(number: int, size: int = 4096) -> bytes:
    return struct.pack(">I", number) * (size // 4)


async def listen(endpoint: Any) -> tuple[Any, Deferred[Sender]]:
    accepted: Deferred[Sender] = Deferred()

    def build() -> Sender:
        sender = Sender()
        sender.opened.addCallback(lambda _: accepted.callback(sender))
        return sender

    return await endpoint.listen(Factory.forProtocol(build)), accepted


@asynccontextmanager
async def pair(
    send_buffer: int = SMALL, receive: int = SMALL
) -> AsyncIterator[tuple[Sender, Reader]]:
    """A connection over loopback with small buffers, whose peer does not read of itself."""
    port, accepted = await listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.connect(("127.0.0.1", port.getHost().port))
    sender = await accepted
    bound_send_buffer(sender.transport, send_buffer)
    try:
        yield sender, Reader(sock)
    finally:
        sock.close()
        if not sender.lost.called:
            sender.out.abortConnection()
            await sender.lost
        await port.stopListening()


@ensureDeferred
async def test_it_sends_before_the_loop_turns():
    async with pair() as (sender, reader):
        for number in range(50):
            sender.out.write(numbered(number, 320))
            assert reader.now() == numbered(number, 320)
            assert sender.out.offer(FRAME)
            assert reader.now() == FRAME
        assert not sender.out.congested
        assert sender.drained == 0


@ensureDeferred
async def test_several_pieces_go_as_one():
    async with pair() as (sender, reader):
        sender.out.writeSequence([b"ab", b"cd", b"e"])
        assert reader.now() == b"abcde"


@ensureDeferred
async def test_what_the_kernel_does_not_take_follows_in_order():
    async with pair() as (sender, reader):
        written = sender.fill()
        for number in range(100, 120):
            sender.out.write(numbered(number))
            written += numbered(number)
        assert sender.drained == 0
        assert await reader.read(len(written)) == written
        await sleep(0)
        assert not sender.out.congested
        assert sender.drained == 1
        sender.out.write(b"after")
        assert reader.now() == b"after"


@ensureDeferred
async def test_one_message_that_is_larger_than_all_buffers():
    async with pair() as (sender, reader):
        great = b"".join(numbered(number) for number in range(500))
        assert sender.out.offer(great)  # taken, so all of it will arrive
        assert sender.out.congested
        assert not sender.out.offer(FRAME)
        assert await reader.read(len(great)) == great


@ensureDeferred
async def test_what_is_written_when_it_has_drained_comes_after_what_was_queued():
    async with pair() as (sender, reader):
        written = sender.fill()
        sender.on_drained = lambda: sender.out.write(b"the next")
        assert await reader.read(len(written) + 8) == written + b"the next"


@ensureDeferred
async def test_an_offer_is_taken_whole_or_not_at_all():
    async with pair() as (sender, reader):
        taken = b""
        refused = 0
        for number in range(2000):
            message = numbered(number, 320) + b"end"
            if sender.out.offer(message):
                taken += message
            else:
                refused += 1
        assert refused > 1000
        assert await reader.read(len(taken)) == taken
        await sleep(0)
        assert sender.out.offer(FRAME)
        assert await reader.read(len(FRAME)) == FRAME
        assert reader.now() == b""


@ensureDeferred
async def test_a_phone_that_does_not_read_is_noticed_within_a_second_or_two_of_audio():
    async with pair(receive=131072) as (sender, _):
        taken = 0
        while sender.out.offer(FRAME):
            taken += 1
            await sleep(0)
        assert taken < 500  # with the kernel's own bounds it is 12,000, four minutes of audio
        handle = plain_socket(sender.transport)
        assert handle is not None
        # What Linux reports is the double, which is what it accounts with.
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SMALL
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@ensureDeferred
async def test_a_bots_buffers_are_really_set():
    async with pair() as (sender, _):
        set_buffers(sender.transport, 65536, 32768, 1280)
        handle = plain_socket(sender.transport)
        assert handle is not None
        assert sender.transport.bufferSize == 65536
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 65536
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 32768
        assert handle.getsockopt(socket.IPPROTO_TCP, 25) == 1280
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@ensureDeferred
async def test_closing_waits_for_what_is_queued_and_for_nothing_else():
    for queued in (False, True):
        async with pair() as (sender, reader):
            written = b"all there is"
            if queued:
                written = sender.fill()
            else:
                sender.out.write(written)
            sender.out.loseConnection()
            sender.out.write(b"too late")
            assert not sender.out.offer(FRAME)
            assert await reader.read(1 << 24) == written
            await sender.lost
            assert sender.transport.producer is None
            sender.out.loseConnection()


@ensureDeferred
async def test_aborting_waits_for_nothing():
    async with pair() as (sender, reader):
        sender.fill()
        sender.out.loseConnection()
        sender.out.abortConnection()
        assert not sender.out.offer(FRAME)
        await sender.lost
        with pytest.raises(ConnectionResetError):
            await reader.read(1 << 24)


@ensureDeferred
async def test_a_peer_that_resets_in_the_midst_of_sending():
    for congested in (False, True):
        async with pair() as (sender, reader):
            if congested:
                sender.fill()
            reader.reset()
            for _ in range(10):  # no exception, whatever the kernel says
                sender.out.offer(FRAME)
                sender.out.write(FRAME)
            await sender.lost
            assert not sender.out.offer(FRAME)
            sender.out.write(FRAME)
            sender.out.loseConnection()


@ensureDeferred
async def test_a_peer_that_closes_and_is_written_to():
    async with pair() as (sender, reader):
        reader.sock.close()
        for _ in range(10):
            sender.out.offer(FRAME)
        await sender.lost
        assert not sender.out.offer(FRAME)


@ensureDeferred
async def test_a_unix_socket_is_written_to_in_twisteds_way(tmp_path: Path):
    path = str(tmp_path / "socket")
    port, accepted = await listen(UNIXServerEndpoint(reactor, path))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sender, reader = await accepted, Reader(sock)
    bound_send_buffer(sender.transport, SMALL)
    set_buffers(sender.transport, 65536, 65536, 1280)
    assert plain_socket(sender.transport) is None
    await check_fallback(sender, reader.read)
    sock.close()
    await sender.lost
    await port.stopListening()


class Receiver(Protocol):
    """A peer under TLS."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    async def read(self, size: int) -> bytes:
        while len(self.data) < size:
            await sleep(0)
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def certified(folder: Path) -> Any:
    """A TLS context with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + DAY)
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
    (folder / "key").write_bytes(key_pem)
    (folder / "cert").write_bytes(certificate.sign(key, hashes.SHA256()).public_bytes(pem))
    return ssl.DefaultOpenSSLContextFactory(folder / "key", folder / "cert")


@ensureDeferred
async def test_under_tls_it_is_written_to_in_twisteds_way(tmp_path: Path):
    context = certified(tmp_path)
    endpoint = SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")
    port, accepted = await listen(endpoint)
    client = SSL4ClientEndpoint(
        reactor, "127.0.0.1", port.getHost().port, ssl.CertificateOptions(verify=False)
    )
    receiver = await connectProtocol(client, Receiver())
    sender = await accepted
    bound_send_buffer(sender.transport, SMALL)
    assert plain_socket(sender.transport) is None
    await check_fallback(sender, receiver.read)
    await receiver.lost
    await sender.lost
    await port.stopListening()


async def check_fallback(sender: Sender, read: Callable[[int], Awaitable[bytes]]) -> None:
    """The same promises, kept by Twisted's own buffer: bounded, whole, in order, and an end."""
    sender.out.write(FRAME)
    assert await read(len(FRAME)) == FRAME
    while sender.out.congested:  # until the handshake of TLS is over
        await sleep(0)
    written = sender.fill(65536)
    assert not sender.out.offer(FRAME)
    drained = sender.drained
    assert await read(len(written)) == written
    while sender.out.congested:
        await sleep(0)
    assert sender.drained == drained + 1
    assert sender.out.offer(FRAME)
    sender.out.write(b"the last")
    sender.out.loseConnection()
    sender.out.write(b"too late")
    assert not sender.out.offer(FRAME)
    assert await read(len(FRAME) + 8) == FRAME + b"the last"
