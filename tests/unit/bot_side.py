"""The bot's side of one call in memory: link, server and playout are real, the bot is a double."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import FailureCause, LossCause, ReadyBy
from pipecat_bridge.errors import PeerError
from pipecat_bridge.options import CallerAudioOptions, WebSocketOptions
from pipecat_bridge.runner.link.early import Early
from pipecat_bridge.runner.link.interfaces import Loss
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Command
from pipecat_bridge.wire.pipecat import PipecatDialect
from tests.doubles import protobuf
from tests.doubles.bot import BotDouble, Direction
from tests.doubles.link import LinkTransport, join, turn

CALL = "8b2b1a2e-5f0b-4ea5-9f0c-0d5ad6c1b1a7"
FRAME = 0.02


class Heard:
    """Owner and listener of a link, and listener of a bot: what a bot did, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.events: list[rtvi.Event] = []
        self.commands: list[Command] = []
        self.reasons: list[str] = []
        self.warnings: list[tuple[str, str]] = []
        self.ready_by: list[ReadyBy] = []
        self.errors: list[PeerError] = []
        self.losses: list[Loss] = []
        self.attempts: list[tuple[str, str]] = []

    # As the owner of a link

    def link_connected(self) -> None:
        self.names.append("connected")

    def link_ready(self, by: ReadyBy) -> None:
        self.bot_ready(by)

    def link_failed(self, error: PeerError) -> None:
        self.names.append("failed")
        self.errors.append(error)

    def link_ended(self) -> None:
        self.bot_ended()

    def link_lost(self, loss: Loss) -> None:
        self.losses.append(loss)
        self.bot_lost(loss.cause, loss.reason)

    def link_broken(self, reason: str) -> None:
        self.bot_broken(reason)

    # As a listener

    def bot_broken(self, reason: str) -> None:
        self.names.append("broken")
        self.reasons.append(reason)

    def bot_ready(self, by: ReadyBy) -> None:
        self.names.append("ready")
        self.ready_by.append(by)

    def bot_event(self, event: rtvi.Event) -> None:
        self.events.append(event)

    def bot_command(self, command: Command) -> None:
        self.commands.append(command)

    def bot_interrupted(self) -> None:
        self.names.append("interrupted")

    def bot_warning(self, kind: str, text: str) -> None:
        self.warnings.append((kind, text))

    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        self.attempts.append((runner, reason))

    def bot_ended(self) -> None:
        self.names.append("ended")

    def bot_lost(self, cause: LossCause, reason: str) -> None:
        self.names.append("lost")
        self.reasons.append(reason)

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        self.names.append("failed")
        self.reasons.append(reason)


class BotSide:
    """A link that waits at the server, and bots that dial it."""

    def __init__(self, ready_timeout: float = 1.0, max_queue: float = 60.0, **options: Any) -> None:
        websocket = {
            name: options.pop(name) for name in list(options) if hasattr(WebSocketOptions(), name)
        }
        self.clock = Clock()
        self.dialback_server = DialbackServer(self.clock, WebSocketOptions(**websocket))
        # Autobahn's timers would run on the global reactor.
        self.dialback_server.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        self.heard = Heard()
        self.playout = Playout(prebuffer=0.0, max_queue=max_queue)
        self.audio = CallerAudioOptions(**options)
        self.early = Early(self.audio.keep_before_ready)
        self.link = BotLink(
            CALL,
            self.clock,
            self.playout,
            self.heard,
            self.heard,
            PipecatDialect(self.audio.sample_rate, "0"),
            self.audio,
            self.early,
            ready_timeout,
            self.clock.seconds,
        )
        self.token = self.dialback_server.expect(self.link)
        self.transports: list[LinkTransport] = []  # the bridge's ends

    def dial(self, bot: BotDouble, direction: Direction = None) -> None:
        """Connect one socket of the bot's."""
        client = bot.socket(f"ws://127.0.0.1:8001/{CALL}/ws/{self.token}", direction)
        client.opened.addErrback(lambda _: None)
        _, server = join(self.clock, client, self.dialback_server.buildProtocol(None))
        self.transports.append(server)
        self.turn(0.005)

    def bot(self, sockets: int = 1, **options: Any) -> BotDouble:
        """A bot that has dialled."""
        bot = BotDouble(self.clock, **options)
        ways: tuple[Direction, ...] = (None,) if sockets == 1 else ("input", "output")
        for way in ways:
            self.dial(bot, way)
        return bot

    def turn(self, seconds: float = 0.005) -> None:
        turn(self.clock, seconds)

    def speak(self, frames: int, rate: int = 16000, start: int = 0) -> bytes:
        """The caller speaks, in real time; what was said. Each frame is its number throughout."""
        said = []
        for number in range(start, start + frames):
            said.append(numbered(number, rate))
            self.link.send_audio(said[-1], rate)
            self.turn(FRAME)
        return b"".join(said)

    def played(self) -> bytes:
        """All that waits to be played."""
        frames = []
        while not self.playout.empty:
            frames.append(self.playout.read(self.clock.seconds() + 60) or b"")
        return b"".join(frames)


def numbered(number: int, rate: int = 16000) -> bytes:
    """A frame of 20 ms that says which one it is."""
    return number.to_bytes(2, "little") * (rate // 50)


def order(bot: BotDouble) -> list[str]:
    """Collects the kinds of frames that a bot gets from now on."""
    kinds: list[str] = []
    received = bot.received

    def watch(source: Any, payload: bytes, binary: bool) -> None:
        kinds.append(protobuf.decode(payload).which)
        received(source, payload, binary)

    bot.received = watch  # type: ignore[method-assign]
    return kinds


def numbers(bot: BotDouble) -> list[int]:
    """Which frames a bot has heard."""
    return [int.from_bytes(frame.pcm[:2], "little") for frame in bot.audio]


class BotSideCase(SynchronousTestCase):
    """Has a `side`; builds another one where options are wanted."""

    def setUp(self) -> None:
        self.side = BotSide()

    def make(self, **options: Any) -> BotSide:
        self.side = BotSide(**options)
        return self.side


@contextmanager
def logged(least: LogLevel = LogLevel.info, source: str = "pipecat") -> Iterator[list[str]]:
    """Collect what the bridge logs; with no `source`, what anybody does."""
    said: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] >= least and event["log_namespace"].startswith(source):
            said.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield said
    finally:
        globalLogPublisher.removeObserver(observe)


def warnings() -> AbstractContextManager[list[str]]:
    """Collect what the bridge logs at the level of a warning or above."""
    return logged(LogLevel.warn)
