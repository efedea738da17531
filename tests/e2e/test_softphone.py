"""The soft phone over a real socket, against a small AudioSocket server that echoes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from pipecat_bridge.tools.phone import scenario
from pipecat_bridge.tools.phone.call import CallError, PlacedCall, dial, place_call
from pipecat_bridge.tools.phone.daemon import DaemonError, DaemonProcess, free_ports
from pipecat_bridge.tools.phone.ears import recognise
from pipecat_bridge.tools.phone.judge import grammar, listen, missing_words
from pipecat_bridge.tools.phone.microphone import Microphone
from pipecat_bridge.tools.phone.recording import Recording
from pipecat_bridge.tools.phone.softphone import How, SoftPhone
from pipecat_bridge.tools.phone.speech import trimmed
from pipecat_bridge.tools.phone.wav import at_rate, read_wav, write_wav
from pipecat_bridge.wire.audiosocket import (
    AUDIO_KINDS,
    ERROR,
    HANGUP,
    AudioSocketMessage,
    Decoder,
    Kind,
    encode,
)

pytestmark = pytest.mark.tools


class Echo(Protocol):
    """Silence at once, then every message as it came; hangs up after the key ``#``."""

    def __init__(self, factory: EchoServer) -> None:
        self.messages: list[AudioSocketMessage] = []
        self.lost: Deferred[None] = Deferred()
        self._factory = factory
        self._decoder = Decoder()

    def connectionMade(self) -> None:
        if self._factory.first is None:
            self.transport.loseConnection()
        else:
            self.transport.write(self._factory.first)

    def dataReceived(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self.messages.append(message)
            if message == AudioSocketMessage(Kind.DTMF, b"#"):
                self.transport.write(HANGUP)
            elif message.kind in AUDIO_KINDS.values() and self._factory.echoes:
                self.transport.write(encode(*message))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class EchoServer(Factory):
    """Listens on a free port; `first` is what it sends on accept, None for a close."""

    def __init__(self, first: bytes | None = encode(0x10, bytes(320)), echoes: bool = True) -> None:
        self.first = first
        self.echoes = echoes
        self.lines: list[Echo] = []
        self.port = 0

    def buildProtocol(self, address: object) -> Echo:
        self.lines.append(Echo(self))
        return self.lines[-1]


async def listening(server: EchoServer):
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server)
    server.port = port.getHost().port
    return port


@ensureDeferred
async def test_every_sample_comes_back_and_both_are_on_one_time_line():
    for rate in (8000, 16000):
        await _echo_call(rate)


async def _echo_call(rate: int) -> None:
    server = EchoServer()
    port = await listening(server)
    microphone, recording = Microphone(noise=50.0), Recording(rate)
    microphone.say(np.random.default_rng(2).integers(-9000, 9000, rate).astype(np.int16))
    pressed: list[str] = []

    def tick(at: float) -> None:
        if not microphone.speaking and not pressed:
            pressed.append("#")
            phone.press("#")

    call_id = uuid4()
    phone = SoftPhone(call_id, microphone, recording, reactor, time.monotonic, tick)
    ending = await dial(reactor, "127.0.0.1", server.port, phone)
    (line,) = server.lines
    await line.lost
    await port.stopListening()

    assert ending.how is How.PEER_HUNG_UP
    assert line.messages[0] == AudioSocketMessage(Kind.UUID, call_id.bytes)
    sent = [one for one in line.messages if one.kind in AUDIO_KINDS.values()]
    assert {(one.kind, len(one.payload)) for one in sent} == {(AUDIO_KINDS[rate], rate // 25)}
    echoed = b"".join(chunk.pcm for chunk in recording.chunks[1:])
    spoken = b"".join(one.payload for one in sent)
    assert spoken.startswith(echoed)
    assert len(echoed) >= 2 * rate
    caller = recording.timeline().caller.astype("<i2").tobytes()
    assert caller.startswith(echoed)


@ensureDeferred
async def test_a_wav_file_is_called_and_the_recording_written(tmp_path: Path):
    server = EchoServer()
    port = await listening(server)
    wave = (np.sin(2 * np.pi * 440 * np.arange(22050) / 44100) * 9000).astype(np.int16)
    write_wav(tmp_path / "in.wav", [wave], 44100)
    options = PlacedCall(
        "127.0.0.1",
        server.port,
        UUID(int=7),
        8000,
        tmp_path / "in.wav",
        tmp_path / "out.wav",
        0.7,
    )
    sentence = await place_call(reactor, options)
    (line,) = server.lines
    await line.lost
    await port.stopListening()
    assert sentence.startswith("The call went through: 0.7 s, 0.5 s of sound heard, ")
    assert line.messages[0] == AudioSocketMessage(Kind.UUID, UUID(int=7).bytes)
    mixed, rate = read_wav(tmp_path / "out.wav")
    assert rate == 8000
    assert mixed.size >= 5600


SOUND = encode(0x10, (np.sin(np.arange(800)) * 9000).astype("<i2").tobytes())
SILENCE = encode(0x10, bytes(320))


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (b"", r"the bot was not heard: no audio came back in 0.1 s"),
        (SILENCE, r"the bot was not heard: only silence came back in 0.1 s"),
        (
            HANGUP,
            r"hung up by the peer after 0.0 s, before any sound: see the bridge's log, or GET ",
        ),
        (SILENCE + HANGUP, r"hung up by the peer after 0.0 s, before any sound: "),
        (
            None,
            r"(closed by the peer without .*|connection lost) after 0.0 s",
        ),
        (ERROR, r"the phone ended it after 0.0 s, as Asterisk would: an AudioSocket error"),
        (SOUND + ERROR, r"the phone ended it after 0.0 s, as Asterisk would: an AudioSocket error"),
        (
            encode(Kind.UUID, bytes(16)),
            r"the phone ended it .* as Asterisk would: kind 0x01 from a server",
        ),
    ],
)
@ensureDeferred
async def test_calls_without_a_bot_end_in_one_sentence(first: bytes | None, sentence: str):
    server = EchoServer(first=first, echoes=False)
    port = await listening(server)
    options = PlacedCall("127.0.0.1", server.port, uuid4(), 8000, seconds=0.1)
    with pytest.raises(CallError, match=sentence):
        await place_call(reactor, options)
    await server.lines[0].lost
    await port.stopListening()


@ensureDeferred
async def test_a_bot_that_hangs_up_after_it_was_heard():
    server = EchoServer(first=SOUND + HANGUP)
    port = await listening(server)
    options = PlacedCall("127.0.0.1", server.port, uuid4(), 8000, seconds=5.0)
    sentence = await place_call(reactor, options)
    await server.lines[0].lost
    await port.stopListening()
    assert "0.1 s of sound heard" in sentence
    assert sentence.endswith("hung up by the peer.")


@ensureDeferred
async def test_nothing_listens():
    port = await listening(server := EchoServer())
    await port.stopListening()
    gone = PlacedCall("127.0.0.1", server.port, uuid4(), 8000, seconds=0.1)
    with pytest.raises(CallError, match=r"nothing listens on 127\.0\.0\.1:.*connection refused"):
        await place_call(reactor, gone)


@ensureDeferred
async def test_files_are_checked_before_the_call(tmp_path: Path):
    server = EchoServer(first=SOUND)
    port = await listening(server)
    no_wav = tmp_path / "text"
    no_wav.write_text("no sound")
    call = PlacedCall("127.0.0.1", server.port, uuid4(), 8000, seconds=0.1)
    for options, sentence in (
        (call._replace(out=tmp_path), "the recording cannot be written to .*: Is a directory"),
        (call._replace(out=tmp_path / "no" / "x.wav"), "cannot be written to .*: No such file or"),
        (call._replace(out=no_wav / "x.wav"), "cannot be written to .*: Not a directory"),
        (call._replace(wav=tmp_path / "no.wav"), "no.wav cannot be read: No such file or"),
        (call._replace(wav=no_wav), "text is not a PCM WAV file: "),
        (call._replace(wav=no_wav, out=tmp_path / "out.wav"), "text is not a PCM WAV file: "),
    ):
        with pytest.raises(CallError, match=f"^no call: .*{sentence}"):
            await place_call(reactor, options)
    await port.stopListening()
    assert server.lines == []
    assert list(tmp_path.iterdir()) == [no_wav]


@ensureDeferred
async def test_a_recording_is_not_touched_when_no_call_is_placed(tmp_path: Path):
    out = tmp_path / "out.wav"
    out.write_bytes(b"of another call")
    port = await listening(server := EchoServer())
    await port.stopListening()
    gone = PlacedCall("127.0.0.1", server.port, uuid4(), 8000, out=out, seconds=0.1)
    with pytest.raises(CallError, match="connection refused"):
        await place_call(reactor, gone)
    assert out.read_bytes() == b"of another call"


@ensureDeferred
async def test_the_command_tells_by_its_exit_status():
    heard, silent = EchoServer(first=SOUND), EchoServer(first=SILENCE)
    results = []
    for server in (heard, silent):
        port = await listening(server)
        results.append(await deferToThread(_command, server.port))
        await server.lines[0].lost
        await port.stopListening()
    results.append(await deferToThread(_command, silent.port))
    assert [one.returncode for one in results] == [0, 1, 1], results
    good, quiet, gone = results
    assert good.stdout.startswith("The call went through: 0.2 s, 0.1 s of sound heard")
    assert quiet.stdout == ""
    assert quiet.stderr.startswith("call ")
    assert quiet.stderr.endswith(": the bot was not heard: only silence came back in 0.2 s\n")
    assert "connection refused" in gone.stderr
    assert "Traceback" not in "".join(one.stdout + one.stderr for one in results)


def _command(port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipecat_bridge.cli", "call", f"127.0.0.1:{port}"]
    return subprocess.run(
        [*command, "--duration", "0.2"], capture_output=True, text=True, timeout=60, check=False
    )


# A daemon of a few lines: not ready at first, then ready; ends at SIGTERM.
_SMALL_DAEMON = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        ready = self.path != "/readyz" or Handler.asked > 2
        self.send_response(404 if self.path == "/nothing" else 200 if ready else 503)
        self.end_headers()
        body = {"path": self.path} if ready else {"reasons": ["no runner", "draining"]}
        self.wfile.write(json.dumps(body).encode())
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@ensureDeferred
async def test_a_daemon_is_started_asked_and_stopped(tmp_path: Path):
    port = free_ports().api
    command = [sys.executable, "-c", _SMALL_DAEMON, str(port)]
    daemon = DaemonProcess(reactor, command, port, tmp_path / "log")
    daemon.start()
    assert await _first_answer(daemon) == "not ready yet: no runner, draining"
    await daemon.ready(lambda line: None)
    assert await daemon.get("/v1/calls") == {"path": "/v1/calls"}
    assert await daemon.get("/nothing") is None
    await daemon.stop()
    await daemon.stop()
    assert await daemon.get("/v1/calls") is None
    assert "GET /readyz" in (tmp_path / "log").read_text()


async def _first_answer(daemon: DaemonProcess) -> str:
    """Why the daemon is not ready, when its API answers."""
    while True:
        reason = await daemon.not_ready()
        if reason != "the API does not answer yet":
            return reason
        await deferLater(reactor, 0.05)


@ensureDeferred
async def test_a_daemon_that_ends_is_told_with_its_last_words(tmp_path: Path):
    command = [sys.executable, "-c", "import sys; sys.exit('the port is taken')"]
    daemon = DaemonProcess(reactor, command, free_ports().api, tmp_path / "log")
    daemon.start()
    with pytest.raises(DaemonError, match=r"ended before it was ready.*\n  the port is taken$"):
        await daemon.ready(lambda line: None)
    await daemon.stop()


@pytest.mark.pipecat
def test_the_judge_knows_the_right_answers_and_refuses_the_others():
    played = scenario.load()
    words = grammar(played.sentences)
    answers = {". ".join(one.sentences): name for name, one in played.answers.items()}
    for text in [*answers, *played.decoys[:6], "our bananas are cheap", "we are open at night"]:
        heard = _heard(text, words)
        found = [
            name for name, one in played.answers.items() if not missing_words(heard, one.words)
        ]
        assert found == [name for right, name in answers.items() if right == text], (text, heard)


def _heard(text: str, words: str) -> str:
    """What the recogniser makes of `text`, spoken at 8 kHz."""
    from pipecat_bridge.embedded.espeak import Espeak

    pcm, rate = Espeak().synthesize(text, "en-us", 160)
    quiet = (np.frombuffer(pcm, dtype="<i2") * 0.5).astype(np.int16)
    return listen(trimmed(at_rate(quiet, rate, 8000), 8000), 8000, words, recognise)
