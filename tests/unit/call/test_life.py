"""The life of a call: each state with each input, caused by phone, bot or API."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import TRANSITIONS, Input, Outcome, State
from pipecat_bridge.contracts import PhoneEnd
from pipecat_bridge.wire.commands import Hangup, Transfer
from tests.unit.sides import BotSide, Exchange, PhoneSide

# A row for each input, a column for each state but ENDED; "." where nothing changes.
TABLE = """
                STARTING        TALKING        RESUMING       FINISHING
BOT_READY       TALKING         .              TALKING        .
BOT_FAILED      runner-failed   .              bot-hangup     .
BOT_ENDED       .               FINISHING      .              .
BOT_LOST        .               bot-hangup     .              .
BOT_TO_REPLACE  .               RESUMING       .              .
BOT_HANGS_UP    .               FINISHING      .              .
BOT_TRANSFERS   .               FINISHING      .              .
PHONE_GONE      phone-lost      phone-lost     phone-lost     phone-lost
PLAYED_OUT      .               .              .              completed
STOP            drained         drained        drained        drained
"""

APPLY: dict[Input, Callable[[Call, PhoneSide], None]] = {
    Input.BOT_READY: lambda call, _: call.bot_ready("bot-ready"),
    Input.BOT_FAILED: lambda call, _: call.bot_failed("no", "runner"),
    Input.BOT_ENDED: lambda call, _: call.bot_ended(),
    Input.BOT_LOST: lambda call, _: call.bot_lost("connection", "reset"),
    Input.BOT_TO_REPLACE: lambda call, _: call.bot_lost("connection", "reset"),
    Input.BOT_HANGS_UP: lambda call, _: call.bot_command(Hangup("done")),
    Input.BOT_TRANSFERS: lambda call, _: call.bot_command(Transfer("support")),
    Input.PHONE_GONE: lambda call, _: call.phone_gone("lost", "no reader"),
    Input.PLAYED_OUT: lambda _, phone: phone.play(1.0),
    Input.STOP: lambda call, _: call.stop(Outcome.DRAINED),
}

BRING_THEIR_OWN = {
    Input.BOT_FAILED,
    Input.BOT_LOST,
    Input.PHONE_GONE,
    Input.PLAYED_OUT,
    Input.STOP,
}
"""Inputs that bring an outcome with them."""


def expected() -> dict[tuple[State, Input], str]:
    """(state, input) -> the state that follows, or the outcome."""
    header, *rows = (line.split() for line in TABLE.strip().splitlines())
    cells = {
        (State[column], Input[row[0]]): cell
        for row in rows
        for column, cell in zip(header, row[1:], strict=True)
    }
    return {pair: pair[0].name if cell == "." else cell for pair, cell in cells.items()}


def call_in(state: State, restarts: int = 0) -> tuple[Call, PhoneSide, BotSide]:
    """A call in `state`, whose bot may be replaced so many times from there on."""
    more = restarts + (state is State.RESUMING)
    exchange = Exchange(on_bot_lost="restart", max_restarts=more)
    call, phone, bot = exchange.call()
    if state in (State.TALKING, State.RESUMING, State.FINISHING):
        call.bot_ready("bot-ready")
        exchange.say(bot, 0.5)
    if state is State.RESUMING:
        call.bot_lost("connection", "reset")
    if state is State.FINISHING:
        call.bot_ended()
    if state is State.ENDED:
        call.stop()
    return call, phone, bot


class LifeTests(SynchronousTestCase):
    def test_every_state_with_every_input(self) -> None:
        table = expected()
        for state, what in product(State, Input):
            with self.subTest(state=state.name, input=what.name):
                call, phone, _ = call_in(state, restarts=what is Input.BOT_TO_REPLACE)
                self.assertIs(call.state, state)
                APPLY[what](call, phone)
                found = call.outcome.value if call.outcome else call.state.name
                self.assertEqual(found, table.get((state, what), "stopped"))

    def test_the_end_absorbs_everything(self) -> None:
        for what in Input:
            call, phone, bot = call_in(State.ENDED, restarts=1)
            APPLY[what](call, phone)
            self.assertIs(call.outcome, Outcome.STOPPED)
            self.assertEqual((bot.stops, len(phone.hangups)), (1, 1))

    def test_finishing_ends_as_what_it_was_begun_for(self) -> None:
        ends: dict[Input, str] = {}
        for (state, what), (following, outcome) in TRANSITIONS.items():
            if following is State.FINISHING:
                call, phone, _ = call_in(state)
                APPLY[what](call, phone)
                phone.play(1.0)
                self.assertIs(call.outcome, outcome)
                ends[what] = call.outcome.value if call.outcome else "none"
        goodbyes = dict.fromkeys((Input.BOT_ENDED, Input.BOT_HANGS_UP), "completed")
        self.assertEqual(ends, {**goodbyes, Input.BOT_TRANSFERS: "transferred"})

    def test_an_end_and_what_leads_to_it_have_an_outcome_and_nothing_else_has(self) -> None:
        for (_, what), (following, outcome) in TRANSITIONS.items():
            ends = following in (State.FINISHING, State.ENDED)
            self.assertEqual(ends, outcome is not None or what in BRING_THEIR_OWN)

    def test_each_state_is_reached_and_left_toward_the_end(self) -> None:
        for state in set(State) - {State.STARTING}:
            self.assertIn(state, {following for following, _ in TRANSITIONS.values()})
        for state in set(State) - {State.ENDED}:
            self.assertIs(TRANSITIONS[state, Input.STOP][0], State.ENDED)
            self.assertIs(TRANSITIONS[state, Input.PHONE_GONE][0], State.ENDED)

    def test_each_outcome_is_reached(self) -> None:
        reached = {outcome for _, outcome in TRANSITIONS.values() if outcome}
        exchange = Exchange(max_duration=5.0, max_calls=3)
        for outcome in (Outcome.STOPPED, Outcome.DRAINED):
            call, _, _ = exchange.talk()
            call.stop(outcome)
        ends: tuple[PhoneEnd, ...] = ("hangup", "lost", "fault")
        for how in ends:
            call, _, _ = exchange.talk()
            call.phone_gone(how, "")
        exchange.talk()
        exchange.clock.advance(5.0)
        exchange.calls.drain()
        self.assertIsNone(exchange.calls.answer("42", PhoneSide(exchange.clock)))
        for cause in ("connection", "error", "silent"):
            call, _, _ = Exchange().talk()
            call.bot_lost(cause, "")
            reached.add(call.outcome)
        for cause in ("runner", "bridge"):
            call, _, _ = Exchange().call()
            call.bot_failed("", cause)
            reached.add(call.outcome)
        call, _, _ = Exchange().call()
        call.phone_gone()
        reached.add(call.outcome)
        reached |= {Outcome(value) for value, count in exchange.calls.outcomes.items() if count}
        self.assertEqual(reached, set(Outcome))
