"""One call: joins a phone and a bot, and ends exactly once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Literal

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.hold import HoldMusic
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.call import life
from pipecat_bridge.call.bot_log import BotLog
from pipecat_bridge.call.digits import Digits
from pipecat_bridge.call.keys import without_keys
from pipecat_bridge.call.life import Input, Outcome, State
from pipecat_bridge.call.monitor import Monitor
from pipecat_bridge.call.record import record, text_of
from pipecat_bridge.call.recording import CallRecording, Plan
from pipecat_bridge.call.succession import Succession
from pipecat_bridge.call.transcript import Transcript, Voice
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
from pipecat_bridge.errors import brief
from pipecat_bridge.events import kinds, notes
from pipecat_bridge.events.events import Events
from pipecat_bridge.events.history import History
from pipecat_bridge.net.guard import FAULT, guarded, reason_of
from pipecat_bridge.net.rate_limit import RateLimit
from pipecat_bridge.options import CallOptions
from pipecat_bridge.wire import commands, rtvi
from pipecat_bridge.wire.commands import CommandError

MAX_KEYS = 20
"""Keys of the caller that are passed on to the bot within a second."""

RECORD = (True, "true", "1", "yes")
"""Values of the metadata `record` with which a call is recorded: of JSON, and of a form."""

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
        node: str = "",
        plan: Plan | None = None,
        hide_keys: bool = False,
    ) -> None:
        self.call_id = request.call_id
        self.node = node
        self.metadata = request.metadata
        self.state = State.STARTING
        self.outcome: Outcome | None = None
        self.reason = ""
        self.transfer: str | None = None
        self.variables = Variables()
        self.created_at = wall_clock()
        self._wall_clock = _steady(self.created_at, clock)
        self.ready_at: float | None = None
        self.ended_at: float | None = None
        self.duration: float | None = None
        self.phone = phone
        self.playout = playout
        self.bots = Succession(bots, request, playout, self)
        self.history = History(request.call_id, events, self._wall_clock)
        self.warnings = Warnings()
        self.errors: Counter[str] = Counter()  # of the bot, by category
        self.interruptions = 0  # how often the caller barged in
        self.bot_log = BotLog(self._wall_clock)
        self.monitor = Monitor()
        self.transcript = Transcript(self._voice, playout.mark, self._wall_clock, self.history.tell)
        make_file = None if plan is None else partial(plan.begin, self.call_id, self.created_at)
        self.recording = CallRecording(self.monitor, make_file, self.warn)
        self._plan = plan
        self._hide_keys = hide_keys
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
        self.history.tell(self._created())
        if self.state is not State.ENDED:  # else a listener has ended the call
            self.history.tell(kinds.CallAnswered())
        for kind, text in doubts:  # before the bot is asked for, which may end the call at once
            self.warn(kind, text)
        if self.state is State.ENDED:  # a listener has ended the call
            return
        longest = self._options.max_duration
        if longest:
            reason = f"longer than [calls] max_duration, {longest:g} s"
            self._limit = self._clock.callLater(longest, self.stop, Outcome.TIMEOUT, reason)
        self._watch.expect_phone_audio(self.phone.stats)
        self.phone.listen(self.monitor.sent)
        self._join()
        self._announce_recording()

    def _announce_recording(self) -> None:
        """Say that the call is recorded, if it is, and then begin."""
        plan = self._plan
        wanted = plan is not None and (plan.always or self.metadata.get("record") in RECORD)
        if plan is None or not wanted:
            self._ask()
        elif plan.announcement is None:
            self._begin_recorded()
        else:
            pcm, rate = plan.announcement
            own = self.playout.rate
            if rate != own:
                pcm = make_resampler(rate, own).process(pcm)
            self.phone.listen(self._announced)
            self.playout.interject(pcm)
            self.playout.mark(self._begin_announced)

    def _announced(self, frame: bytes | None, rate: int) -> None:
        """A frame of the announcement was sent: the bot says nothing."""
        self.monitor.sent(bytes(len(frame)) if frame else None, rate)

    @guarded()
    def _begin_announced(self) -> None:
        self.phone.listen(self.monitor.sent)
        self._begin_recorded()

    @guarded()
    def _begin_recorded(self) -> None:
        if self.state is State.STARTING:
            self.record("start")
            self._ask()

    def record(self, action: str) -> bool:
        """Start, pause, resume or stop the recording. False if there is nothing to do."""
        before = self.recording.state
        done = self.recording.obey(action)
        if before == "off" and self.recording.state == "running":
            self.history.tell(kinds.RecordingStarted())
        return done

    def _created(self) -> kinds.CallCreated:
        caller, called = (text_of(self.metadata, key) for key in ("caller", "called"))
        return kinds.CallCreated(self.phone.peer, "in", caller, called)

    def _join(self) -> None:
        self.phone.join(self.monitor.beside(self.bot.audio_sink), self.playout)

    def _ask(self) -> None:
        self.bot_log.asked()
        self.bots.start()

    def _voice(self) -> Voice:
        """What the bots have sent, and what was played of it, however fast."""
        stats = self.playout.stats
        played = stats.frames_played * FRAME + (stats.shortened_ms - stats.stretched_ms) / 1000
        lost = (stats.flushed_ms + stats.dropped_ms) / 1000
        return Voice(played + self.playout.waiting + lost, played)

    @guarded()
    def warn(self, kind: str, text: str) -> None:
        """Something is wrong, and the call goes on. `kind` is one of `warnings.KINDS`."""
        if self.warnings.add(kind):
            self.history.tell(notes.Warned(kind, text))

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
        self.history.tell(kinds.Dtmf("?" if self._hides_keys else digit))
        if not self.bot.send_digit(digit):
            self.warn("not-read", "a key was dropped: too much waits for the bot")

    @property
    def _hides_keys(self) -> bool:
        return self._hide_keys or self.recording.hides_keys

    def phone_gone(self, how: PhoneEnd = "hangup", reason: str = "") -> None:
        """The phone has ended: `how`, and why."""
        self._input(Input.PHONE_GONE, life.PHONE_ENDS[how], reason)

    phone_warning = warn

    # From the bot

    @guarded()
    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        """One runner has failed, and another one is asked."""
        self._attempt_failed(runner, reason)

    def _attempt_failed(self, runner: str, reason: str, quiet: bool = False) -> None:
        self.errors["start"] += 1
        self.bot_log.failed(runner, reason)
        self.history.tell(kinds.BotError("start", reason, runner), quiet)

    def bot_ready(self, by: ReadyBy) -> None:
        """The bot is ready: send it the caller's audio."""
        self._join()
        self._input(Input.BOT_READY)
        if self.state is not State.TALKING:
            return
        self.playout.release()
        bot = self.bot
        self.bot_log.ready(bot.runner_name, by)
        self._watch.expect_bot_voice(bot.stats)
        now = self._wall_clock()
        if self.ready_at is None:
            self.ready_at = now
            seconds = round(now - self.created_at, 3)
            self.history.tell(kinds.CallReady(by, bot.runner_name, seconds))
        else:
            self.history.tell(kinds.BotResumed(self.bots.replaced, bot.runner_name))

    @guarded()
    def bot_event(self, event: rtvi.Event) -> None:
        """The bot sent an event."""
        if isinstance(event, rtvi.UserStartedSpeaking):
            self._watch.expect_no_answer()
        elif isinstance(event, rtvi.UserStoppedSpeaking):
            self._watch.expect_answer(self.bot.stats)
        elif isinstance(event, rtvi.ServerMessage) and not commands.is_command(event.data):
            self.history.tell(kinds.Message(event.data))
        elif isinstance(event, rtvi.BotError):
            category: Literal["fatal", "reported"] = "fatal" if event.fatal else "reported"
            self.errors[category] += 1
            self.history.tell(kinds.BotError(category, brief(event.error), self.bot.runner_name))
        if isinstance(event, rtvi.UserTranscription) and self._hides_keys:
            event = without_keys(event)
        self.transcript.hear(event)

    @guarded()
    def bot_interrupted(self) -> None:
        """The bot gives way to the caller. Pipecat's bots do so at each turn of the caller: the
        caller has barged in only if the bot had more to say."""
        if self.transcript.interrupted() or self.playout.speaks:
            self.interruptions += 1
            self.history.tell(kinds.Interrupted())

    bot_warning = warn

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        """No bot could be started."""
        outcome = life.FAILURES[cause]
        runner = self.bot.runner_name
        if runner and self.state is not State.ENDED and not self.bot_log.has_just_failed(runner):
            self._attempt_failed(runner, reason, quiet=True)  # the call ends with this reason
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
            self.history.tell(kinds.Variables(command.variables))
        elif self.state is State.FINISHING:
            return
        elif isinstance(command, commands.Record):
            self._obey_recording(command.action)
        elif isinstance(command, commands.PlayDTMF):
            self._digits.play(command.digits)
            self.history.tell(notes.Plays(command.digits))
        elif isinstance(command, commands.Transfer):
            self.transfer = command.target
            self.history.tell(kinds.Transfer(command.target))
            self._input(Input.BOT_TRANSFERS)
        else:
            self.history.tell(notes.HangsUp(command.reason))
            self._input(Input.BOT_HANGS_UP, None, command.reason)

    def _obey_recording(self, action: str) -> None:
        if not self.recording.possible:
            raise CommandError("a record command: expected [recording] when = on_demand, or always")
        self.record(action)

    # The table

    @guarded()
    def _input(self, what: Input, outcome: Outcome | None = None, reason: str = "") -> None:
        following = life.TRANSITIONS.get((self.state, what))
        if following is None:
            return
        self.state, fixed = following
        if self.state is State.TALKING:
            return
        if self.state is State.RESUMING:
            self._resume(outcome or Outcome.BOT_HANGUP, reason)
        elif self.state is State.FINISHING:
            self._play_out(fixed, reason)
        else:
            self._end(fixed or outcome or Outcome.STOPPED, reason)

    def _resume(self, outcome: Outcome, reason: str) -> None:
        """Replace the lost bot. Its last words are played meanwhile.

        The phone is joined to the new bot at once, which keeps the newest audio until it is ready.
        """
        self._loss = outcome, reason
        self.bot_log.ended(reason)
        self.transcript.bot_gone()
        self.history.tell(kinds.BotLost(reason, self.bot.runner_name))
        if self.state is not State.RESUMING:  # a listener has ended the call
            return
        self._watch.expect_nothing_of_the_bot()
        self.playout.new_bot()
        if self._hold is not None:
            self.playout.hold(*self._hold)
        gone = self.bots.replace(self)
        self._join()
        gone.addBoth(lambda _: self._ask())

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
        self.duration = round(self._clock.seconds() - self._started_at, 3)
        hangs_up = outcome in life.BOT_LOST and self._options.on_bot_lost != "dialplan"
        with ExitStack() as stack:  # all of it, in this order from below, whatever one step raises
            stack.callback(self._ended, self)
            stack.callback(self._tell_end)
            stack.callback(self.transcript.close)
            stack.callback(self.monitor.close)
            stack.callback(self.recording.close)
            stack.callback(self.phone.hang_up, not hangs_up)
            stack.callback(self.playout.close)
            stack.callback(self.bots.stop)
            stack.callback(self._cancel_timers)

    def _tell_end(self) -> None:
        lost = self.outcome in life.BOT_LOST
        self.bot_log.ended(self.reason if lost else "")
        self.history.tell(kinds.CallEnded(record(self)))

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
