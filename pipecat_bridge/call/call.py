"""One call: joins a phone and a bot, and ends exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cached_property, partial

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.hold import HoldMusic
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call import life
from pipecat_bridge.call.digits import Digits
from pipecat_bridge.call.life import Input, Outcome, State
from pipecat_bridge.call.succession import Succession
from pipecat_bridge.call.variables import Variables
from pipecat_bridge.call.warnings import Warnings
from pipecat_bridge.call.watch import Watch
from pipecat_bridge.contracts import (
    Bot,
    BotRequest,
    BotSource,
    FailureCause,
    LossCause,
    Phone,
    PhoneEnd,
    ReadyBy,
)
from pipecat_bridge.events.events import Events, told_by_bot
from pipecat_bridge.events.history import History
from pipecat_bridge.net.guard import FAULT, guarded, reason_of
from pipecat_bridge.net.rate_limit import RateLimit
from pipecat_bridge.options import CallOptions
from pipecat_bridge.wire import commands, rtvi
from pipecat_bridge.wire.commands import CommandError

MAX_KEYS = 20
"""Keys of the caller that are passed on to the bot within a second."""

LAST_FRAMES = 0.06
"""Seconds from the last audio to the hangup. At a hangup Asterisk drops audio that it still has."""


class Call:
    """One call. Phone and bot tell it what happens; the table in `life` says what follows.

    `ended` is called once, last of all. `wall_clock` gives seconds since the epoch. It is read
    once: if it is set back in the call, the call's times still say how long everything took.
    """

    _log = Logger()

    def __init__(
        self,
        request: BotRequest,
        phone: Phone,
        bots: BotSource,
        playout: Playout,
        events: Events,
        clock: IReactorTime,
        options: CallOptions,
        ended: Callable[[Call], None],
        hold: HoldMusic | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.call_id = request.call_id
        self.metadata = request.metadata
        self.state = State.STARTING
        self.outcome: Outcome | None = None
        self.reason = ""
        self.transfer: str | None = None
        self.variables = Variables()
        self.created_at = wall_clock()
        self._wall_clock = _steady(self.created_at, clock)
        self.initialized_at: float | None = None
        self.ended_at: float | None = None
        self.phone = phone
        self.playout = playout
        self.bots = Succession(bots, request, playout, self)
        self.history = History(request.call_id, events, self._wall_clock)
        self.warnings = Warnings()
        self._ended = ended
        self._watch = Watch(clock, self.warn)
        self._started_at = clock.seconds()
        self._loss: tuple[Outcome, str] | None = None  # of the bot that is being replaced
        self._clock = clock
        self._options = options
        self._hold = hold
        self._digits = Digits(playout)
        self._keys = RateLimit(MAX_KEYS, MAX_KEYS)
        self._limit: IDelayedCall | None = None
        self._finish: IDelayedCall | None = None

    @cached_property
    def metadata_bytes(self) -> int:
        """The length of the metadata as JSON."""
        return len(msgspec.json.encode(self.metadata))

    @property
    def bot(self) -> Bot:
        """The current bot of the call."""
        return self.bots.bot

    @guarded()
    def start(self, doubts: Iterable[tuple[str, str]] = ()) -> None:
        """Join both sides and ask for the bot. The call begins with the warnings `doubts`."""
        self.history.tell("created", {"peer": self.phone.peer})
        for kind, text in doubts:  # before the bot is asked for, which may end the call at once
            self.warn(kind, text)
        if self.state is State.ENDED:  # a listener has ended the call
            return
        longest = self._options.max_duration
        if longest:
            reason = f"longer than [calls] max_duration, {longest:g} s"
            self._limit = self._clock.callLater(longest, self.stop, Outcome.TIMEOUT, reason)
        self._watch.expect_phone_audio(self.phone.stats)
        self._join()
        self.bots.start()

    def _join(self) -> None:
        self.phone.join(self.bot.audio_sink, self.playout)

    @guarded()
    def warn(self, kind: str, text: str) -> None:
        """Something is wrong, and the call goes on. `kind` is one of `warnings.KINDS`."""
        if self.warnings.add(kind):
            self.history.tell("warning", {"kind": kind, "text": text})

    # From outside

    def stop(self, outcome: Outcome = Outcome.STOPPED, reason: str = "") -> None:
        """End the call at once. Audio that waits to be played is dropped."""
        self._input(Input.STOP, outcome, reason)

    # From the phone

    @guarded()
    def caller_digit(self, digit: str) -> None:
        """The caller pressed a key. A person presses a few in a second."""
        if not self._keys.admit(self._clock.seconds()):
            self.warn("keys-dropped", f"more than {MAX_KEYS} keys in a second: some were dropped")
            return
        self.history.tell("dtmf", {"digit": digit})
        if not self.bot.send_digit(digit):
            self.warn("not-read", f"the key {digit} was dropped: too much waits for the bot")

    def phone_gone(self, how: PhoneEnd = "hangup", reason: str = "") -> None:
        """The phone has ended: `how`, and why."""
        self._input(Input.PHONE_GONE, life.PHONE_ENDS[how], reason)

    phone_warning = warn

    # From the bot

    @guarded()
    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        """One runner has failed, and another one is asked."""
        self.history.tell("attempt-failed", {"runner": runner, "reason": reason})

    def bot_ready(self, by: ReadyBy) -> None:
        """The bot is ready: send it the caller's audio."""
        self._join()
        self._input(Input.BOT_READY)
        if self.state is not State.TALKING:
            return
        self.playout.release()
        bot = self.bot
        self._watch.expect_bot_voice(bot.stats)
        self.history.tell("ready", {"by": by, "runner": bot.runner_name})

    @guarded()
    def bot_event(self, event: rtvi.Event) -> None:
        """The bot sent an event."""
        if isinstance(event, rtvi.UserStartedSpeaking):
            self._watch.expect_no_answer()
        elif isinstance(event, rtvi.UserStoppedSpeaking):
            self._watch.expect_answer(self.bot.stats)
        self.history.tell(*told_by_bot(event))

    @guarded()
    def bot_interrupted(self) -> None:
        """The caller barged in."""
        self.history.tell("interrupted", {})

    bot_warning = warn

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        """No bot could be started."""
        outcome = life.FAILURES[cause]
        if self._loss is not None:
            outcome, lost = self._loss
            reason = f"{lost}; no other bot came: {reason}"
        self._input(Input.BOT_FAILED, outcome, reason)

    def bot_ended(self) -> None:
        """The bot ended the call normally."""
        self._input(Input.BOT_ENDED, None, "the bot ended the call")

    def bot_lost(self, cause: LossCause, reason: str) -> None:
        """A ready bot is lost: replace it if `[calls] on_bot_lost` says so."""
        options = self._options
        more = options.on_bot_lost == "restart" and self.bots.replaced < options.max_restarts
        self._input(Input.BOT_TO_REPLACE if more else Input.BOT_LOST, life.LOSSES[cause], reason)

    def bot_broken(self, reason: str) -> None:
        """End the call: a fault of the bridge ended the bot."""
        self._input(Input.STOP, Outcome.BRIDGE_ERROR, reason)

    @guarded(CommandError)
    def bot_command(self, command: commands.Command) -> None:
        """Carry out a command of the bot. Raises CommandError if it goes beyond a limit.

        After a hangup or a transfer, only variables are still accepted.
        """
        if self.state is State.ENDED:
            return
        if isinstance(command, commands.SetVariables):
            self.variables.set(command.variables)
            self.history.tell("set", {"variables": command.variables})
        elif self.state is State.FINISHING:
            return
        elif isinstance(command, commands.PlayDTMF):
            self._digits.play(command.digits)
            self.history.tell("play-dtmf", {"digits": command.digits})
        elif isinstance(command, commands.Transfer):
            self.transfer = command.target
            self.history.tell("transfer", {"target": command.target})
            self._input(Input.BOT_TRANSFERS)
        else:
            self.history.tell("hangup", {"reason": command.reason})
            self._input(Input.BOT_HANGS_UP, None, command.reason)

    # The table

    @guarded()
    def _input(self, what: Input, outcome: Outcome | None = None, reason: str = "") -> None:
        following = life.TRANSITIONS.get((self.state, what))
        if following is None:
            return
        self.state, fixed = following
        if self.state is State.TALKING:
            self._talk()
        elif self.state is State.RESUMING:
            self._resume(outcome or Outcome.BOT_HANGUP, reason)
        elif self.state is State.FINISHING:
            self._play_out(fixed, reason)
        else:
            self._end(fixed or outcome or Outcome.STOPPED, reason)

    def _talk(self) -> None:
        if self.initialized_at is None:
            self.initialized_at = self._wall_clock()
            self.history.tell("initialized", {})
        else:
            self.history.tell("resumed", {"resumption": self.bots.replaced})

    def _resume(self, outcome: Outcome, reason: str) -> None:
        """Replace the lost bot. Its last words are played meanwhile.

        The phone is joined to the new bot at once, which keeps the newest audio until it is ready.
        """
        self._loss = outcome, reason
        self.history.tell("bot-lost", {"reason": reason, "runner": self.bot.runner_name})
        if self.state is not State.RESUMING:  # a listener has ended the call
            return
        self._watch.expect_nothing_of_the_bot()
        self.playout.new_bot()
        if self._hold is not None:
            self.playout.hold(*self._hold)
        gone = self.bots.replace(self)
        self._join()
        gone.addBoth(lambda _: self.bots.start())

    def _play_out(self, outcome: Outcome | None, reason: str) -> None:
        """Stop the bot, and end the call once the audio that waits has been played."""
        self.bots.stop()
        self.playout.release()
        self.playout.mark(partial(self._played_out, outcome, reason))

    def _played_out(self, outcome: Outcome | None, reason: str) -> None:
        self._finish = self._clock.callLater(
            LAST_FRAMES, self._input, Input.PLAYED_OUT, outcome, reason
        )

    def _end(self, outcome: Outcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason or life.REASONS[outcome]
        self.ended_at = self._wall_clock()
        duration = round(self._clock.seconds() - self._started_at, 3)
        data = {"outcome": outcome.value, "reason": self.reason, "duration": duration}
        hangs_up = outcome in life.BOT_LOST and self._options.on_bot_lost != "dialplan"
        with ExitStack() as stack:  # all of it, in this order from below, whatever one step raises
            stack.callback(self._ended, self)
            stack.callback(self.history.tell, "terminated", data)
            stack.callback(self.phone.hang_up, not hangs_up)
            stack.callback(self.playout.close)
            stack.callback(self.bots.stop)
            stack.callback(self._cancel_timers)

    def _cancel_timers(self) -> None:
        for timer in (self._limit, self._finish):
            if timer is not None and timer.active():
                timer.cancel()
        self._limit = self._finish = None  # a timer that has fired keeps what it called
        self._watch.close()

    def broken(self, failure: Failure) -> None:
        """Log a fault of the bridge with its traceback, and end this call."""
        self._log.failure(FAULT, failure, call_id=self.call_id)
        self.bot_broken(reason_of(failure))


def _steady(began: float, clock: IReactorTime) -> Callable[[], float]:
    """A wall clock that is never set: it is `began` now, and goes on with `clock`."""
    offset = began - clock.seconds()
    return lambda: offset + clock.seconds()
