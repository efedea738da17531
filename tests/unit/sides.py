"""The two sides of a call, in memory: they write down what the call asks of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.contracts import (
    BotListener,
    BotRequest,
    FrameSent,
    LinkStats,
    PhoneStats,
    QueueStats,
    TextFate,
)
from pipecat_bridge.events.events import CallEvent, Events
from pipecat_bridge.options import BotAudioOptions, CallOptions

EPOCH = 1_000_000.0

FRAME = b"\1\0" * 160


class PhoneSide:
    """Plays one frame each 20 ms when `play` is called, as the real one does."""

    def __init__(self, clock: Clock, peer: str = "127.0.0.1:40000") -> None:
        self.clock = clock
        self.stats = PhoneStats()
        self.peer = peer
        self.codec = "linear"
        self.rate = 8000
        self.hangups: list[float] = []
        self.cleanly: bool | None = None
        self.heard: list[bytes] = []
        self.playout: Playout | None = None
        self.sink: Callable[[bytes, int], None] | None = None
        self.sent: FrameSent | None = None

    def listen(self, sent: FrameSent) -> None:
        self.sent = sent

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        self.sink, self.playout = sink, playout

    def hang_up(self, cleanly: bool = True) -> None:
        self.hangups.append(self.clock.seconds())
        self.cleanly = cleanly

    def play(self, seconds: float) -> None:
        """Let time pass; hear what the bot says until the hangup."""
        for _ in range(round(seconds / 0.02)):
            self.clock.advance(0.02)
            if self.playout is not None and not self.hangups:
                frame = self.playout.read(self.clock.seconds())
                self.heard += [] if frame is None else [frame]
                if self.sent is not None:
                    self.sent(frame, self.rate)


class LinkSide:
    """Keeps what is sent to the bot; its dialect has words for text if `takes_text`. It
    takes nothing unless it `reads`."""

    def __init__(self) -> None:
        self.takes_text = True
        self.reads = True
        self.stats = LinkStats()
        self.queue_stats = QueueStats()
        self.audio: list[tuple[bytes, int]] = []
        self.texts: list[tuple[str, bool, bool]] = []
        self.digits = ""
        self.queued = 0

    def send_audio(self, pcm: bytes, rate: int) -> None:
        self.audio.append((pcm, rate))


class BotSide:
    """A bot that does nothing by itself; `listener` is the call. `gone` fires when it is.

    `lost` is the bot whose place it takes.
    """

    def __init__(
        self,
        runner: RunnerSide,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: BotSide | None,
    ) -> None:
        self.runner = runner
        self.request = request
        self.playout = playout
        self.listener = listener
        self.lost = lost
        self.link = LinkSide()
        self.runner_name = ""
        self.starts = 0
        self.stops = 0
        self.gone: Deferred[None] = succeed(None) if runner.forgets_at_once else Deferred()

    @property
    def stats(self) -> LinkStats:
        return self.link.stats

    @property
    def queue_stats(self) -> QueueStats:
        return self.link.queue_stats

    @property
    def queued(self) -> int:
        return self.link.queued

    @property
    def audio_sink(self) -> Callable[[bytes, int], None]:
        return self.link.send_audio

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> TextFate:
        if not self.link.takes_text:
            return "no-texts"
        if not self.link.reads:
            return "full"
        self.link.texts.append((content, run_immediately, audio_response))
        return "sent"

    def send_digit(self, digit: str) -> bool:
        if self.link.reads:
            self.link.digits += digit
        return self.link.reads

    def start(self) -> None:
        self.starts += 1
        self.runner_name = f"http://runner-{len(self.runner.bots)}:8000"
        if self.runner.refuses:
            self.listener.bot_failed(self.runner.refuses, "runner")

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.gone


class RunnerSide:
    """Makes bots; with `refuses`, the reason, each fails as soon as it is started.

    `why_none`: why a call that comes now would get no bot. Unless it `forgets_at_once`, a bot that
    is stopped is there until its `gone` is fired.
    """

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.forgets_at_once = True
        self.why_none = ""
        self.bots: list[BotSide] = []

    def bot(
        self,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: BotSide | None = None,
    ) -> BotSide:
        self.bots.append(BotSide(self, request, playout, listener, lost))
        return self.bots[-1]


class Exchange:
    """A registry of calls between such sides, on a clock; `told` are all events.

    `set_back`: seconds by which the wall clock was set back.
    """

    def __init__(self, refuses: str = "", **options: Any) -> None:
        self.clock = Clock()
        self.set_back = 0.0
        self.runner = RunnerSide(refuses)
        self.events = Events()
        self.told: list[CallEvent] = []
        self.events.subscribe(self.told.append)
        self.calls = Calls(
            self.runner,
            self.events,
            self.clock,
            CallOptions(**options),
            BotAudioOptions(),
            lambda: EPOCH + self.clock.seconds() - self.set_back,
        )

    def call(self, call_id: str = "") -> tuple[Call, PhoneSide, BotSide]:
        """A call that has just begun."""
        phone = PhoneSide(self.clock)
        call = self.calls.answer(call_id or str(uuid4()), phone)
        assert call is not None
        return call, phone, self.runner.bots[-1]

    def talk(self, call_id: str = "") -> tuple[Call, PhoneSide, BotSide]:
        """A call whose bot is there."""
        call, phone, bot = self.call(call_id)
        call.bot_ready("bot-ready")
        return call, phone, bot

    def record(self) -> dict[str, Any]:
        """The record of the call that ended first."""
        first = json.loads(bytes(self.calls.ended[0]))
        record: dict[str, Any] = msgspec.to_builtins(self.calls.record(first["id"]))
        return record

    def say(self, bot: BotSide, seconds: float) -> None:
        """The bot's audio comes, all at once."""
        for _ in range(round(seconds / 0.02)):
            bot.playout.write(FRAME, 8000, 1, self.clock.seconds())

    def data(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of a kind, as they go out."""
        return [json.loads(each.body) for each in self.told if each.kind == kind]

    def kinds(self, call: Call | None = None) -> list[str]:
        """The kinds of all events, or of those of one call."""
        told = [each for each in self.told if call is None or each.call_id == call.call_id]
        return [each.kind for each in told]
