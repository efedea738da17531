"""One call: joins a phone and a bot, and ends exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call.events import CallEvent, Events
from pipecat_bridge.call.history import History
from pipecat_bridge.call.interfaces import Phone, Runner
from pipecat_bridge.call.life import TRANSITIONS, Input, Outcome, State
from pipecat_bridge.runner.dialback import BotRequest
from pipecat_bridge.wire import rtvi

LAST_FRAMES = 0.06
"""Seconds from the last audio to the hangup: Asterisk drops what it has not passed on by then."""

_KINDS: dict[type[rtvi.Event], str] = {
    rtvi.BotReady: "bot-ready",
    rtvi.UserTranscription: "user-transcription",
    rtvi.BotTranscription: "bot-transcription",
    rtvi.BotOutput: "bot-output",
    rtvi.BotLLMText: "bot-llm-text",
    rtvi.BotLLMStarted: "bot-llm-started",
    rtvi.BotLLMStopped: "bot-llm-stopped",
    rtvi.BotStartedSpeaking: "bot-started-speaking",
    rtvi.BotStoppedSpeaking: "bot-stopped-speaking",
    rtvi.UserStartedSpeaking: "user-started-speaking",
    rtvi.UserStoppedSpeaking: "user-stopped-speaking",
    rtvi.Metrics: "metrics",
    rtvi.BotError: "error",
    rtvi.ServerMessage: "server-message",
}

# Told to listeners, not kept with the call: too many, or of no use afterwards.
_FLEETING = {
    "bot-audio-level",
    "bot-llm-marker",
    "bot-llm-text",
    "bot-output",
    "bot-tts-audio",
    "bot-tts-text",
    "llm-raw-text",
    "metrics",
    "stt-raw-text",
    "tts-raw-text",
    "user-audio-level",
}


class Call:
    """The life of one call; its sides tell it what happens, the table says what follows."""

    def __init__(
        self,
        request: BotRequest,
        phone: Phone,
        runner: Runner,
        playout: Playout,
        events: Events,
        clock: IReactorTime,
        max_duration: float = 0.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.call_id = request.call_id
        self.metadata = request.metadata
        self.state = State.STARTING
        self.outcome: Outcome | None = None
        self.reason = ""
        self._wall_clock = wall_clock
        self.created_at = wall_clock()
        self.initialized_at: float | None = None
        self.ended_at: float | None = None
        self.phone = phone
        self.playout = playout
        self.bot = runner.bot(request, playout, self)
        self.kept = History()
        self._events = events
        self._clock = clock
        self._max_duration = max_duration
        self._limit: IDelayedCall | None = None
        self._finish: IDelayedCall | None = None

    def start(self) -> None:
        """Join both sides and ask for the bot."""
        self._tell("created", {"peer": self.phone.peer})
        if self._max_duration:
            reason = f"longer than [calls] max_duration, {self._max_duration:g} s"
            self._limit = self._clock.callLater(
                self._max_duration, self.stop, Outcome.TIMEOUT, reason
            )
        self.phone.join(self.bot.link.send_audio, self.playout)
        self.bot.start()

    # From outside

    def stop(self, outcome: Outcome = Outcome.STOPPED, reason: str = "") -> None:
        """End the call at once; what waits to be played is dropped."""
        self._input(Input.STOP, outcome, reason)

    def send_text(self, text: str, run_immediately: bool, audio_response: bool) -> None:
        """Text to the bot, as if the caller had typed it."""
        self.bot.link.send_message(
            rtvi.send_text(text, run_immediately=run_immediately, audio_response=audio_response)
        )

    # From the phone

    def caller_digit(self, digit: str) -> None:
        """The caller pressed a key."""
        self._tell("dtmf", {"digit": digit})
        self.bot.link.send_message(rtvi.dtmf(digit))

    def phone_gone(self) -> None:
        """The caller hung up."""
        self._input(Input.PHONE_GONE)

    # From the bot

    def bot_connected(self) -> None:
        """The bot's sockets are open."""
        self._input(Input.BOT_CONNECTED)

    def bot_ready(self) -> None:
        """Audio flows."""
        self._tell("ready", {})

    def bot_event(self, event: rtvi.Event) -> None:
        """The bot told something."""
        if isinstance(event, rtvi.Other):
            # Under a name of its own: the bot chooses the type, and "terminated" is ours to tell.
            data = {"type": event.type, "data": event.data}
            self._tell("rtvi", data, keep=event.type not in _FLEETING)
        else:
            self._tell(_KINDS[type(event)], msgspec.to_builtins(event))

    def bot_interrupted(self) -> None:
        """The caller barged in."""
        self._tell("interrupted", {})

    def bot_failed(self, reason: str) -> None:
        """No bot came."""
        self._input(Input.BOT_FAILED, None, reason)

    def bot_ended(self) -> None:
        """The bot closed in good order."""
        self._input(Input.BOT_ENDED)

    def bot_lost(self, reason: str) -> None:
        """The bot's connection broke."""
        self._input(Input.BOT_LOST, None, reason)

    # The table

    def _input(self, what: Input, outcome: Outcome | None = None, reason: str = "") -> None:
        following = TRANSITIONS.get((self.state, what))
        if following is None:
            return
        self.state, fixed = following
        if self.state is State.TALKING:
            self.initialized_at = self._wall_clock()
            self._tell("initialized", {})
        elif self.state is State.FINISHING:
            self._play_out()
        else:
            self._end(fixed or outcome or Outcome.STOPPED, reason)

    def _play_out(self) -> None:
        if self.playout.empty:
            self._finish = self._clock.callLater(LAST_FRAMES, self._input, Input.PLAYED_OUT)
        else:
            self._finish = self._clock.callLater(self.playout.depth + 0.02, self._play_out)

    def _end(self, outcome: Outcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason
        self.ended_at = self._wall_clock()
        for timer in (self._limit, self._finish):
            if timer is not None and timer.active():
                timer.cancel()
        self._limit = self._finish = None  # a timer that has fired keeps what it called
        self.bot.stop()
        self.phone.hang_up()
        duration = round(self.ended_at - self.created_at, 3)
        data = {"outcome": outcome.value, "reason": reason, "duration": duration}
        self._tell("terminated", data)

    def _tell(self, kind: str, data: dict[str, Any], keep: bool = True) -> None:
        event = CallEvent(self.call_id, self._wall_clock(), kind, data)
        if keep and kind not in _FLEETING:
            self.kept.append(event)
        self._events.publish(event)
