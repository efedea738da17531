"""Events reach all listeners, are kept within limits, and are logged on one line each."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.events import CallEvent, Events, envelope
from pipecat_bridge.events.history import MAX_BYTES, MAX_EVENTS, MAX_MESSAGE_BYTES, History
from pipecat_bridge.events.kinds import (
    KINDS,
    VERSION,
    BotError,
    BotLost,
    BotResumed,
    CallCreated,
    CallEnded,
    CallReady,
    Data,
    Dtmf,
    Interrupted,
    Message,
    RecordingReady,
    RecordingStarted,
    Transfer,
    Turn,
    Variables,
)
from pipecat_bridge.events.log import ALWAYS, LINES, LOGGED, EventLog
from pipecat_bridge.events.notes import NOTES, HangsUp, Plays, Rejected, Warned
from pipecat_bridge.events.record import Record
from pipecat_bridge.net.tally import Tally

CREATED = CallCreated("10.0.0.9:5", "in")
READY = CallReady("audio", "http://a", 0.5)


def ended(**members: Any) -> CallEnded:
    """The end of a call of 1.5 seconds."""
    return CallEnded(
        Record(
            version=1,
            id="42",
            node="",
            direction="in",
            state="ended",
            created_at=1.5,
            duration=1.5,
            peer="10.0.0.9:5",
            metadata={},
            variables={},
            errors={},
            warnings={},
            **members,
        )
    )


def event(data: Data = READY, call_id: str = "42", time: float = 1.5) -> CallEvent:
    return CallEvent(call_id, time, data)


class KindTests(SynchronousTestCase):
    def test_an_event_knows_its_kind_and_whether_it_goes_out(self) -> None:
        for names, public in ((KINDS, True), (NOTES, False)):
            for name, data in names.items():
                kept = dict.fromkeys(data.__struct_fields__, "x")
                told = event(data(**kept))
                self.assertEqual((told.kind, told.public), (name, public))

    def test_as_it_goes_out(self) -> None:
        told = event(Turn("bot", "Hi!", 1.25, 1.5))
        out = json.loads(msgspec.json.encode(envelope(told)))
        self.assertEqual(
            out,
            {
                "id": told.id,
                "version": VERSION,
                "kind": "turn",
                "call_id": "42",
                "time": 1.5,
                "data": {"speaker": "bot", "text": "Hi!", "start": 1.25, "end": 1.5},
            },
        )

    def test_no_two_events_have_the_same_id(self) -> None:
        one, other = event(), event()
        self.assertEqual(one.id, one.id)
        self.assertNotEqual(one.id, other.id)


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = Events()
        self.heard: list[CallEvent] = []

    def test_all_listeners_hear_all_events_in_order(self) -> None:
        other: list[CallEvent] = []
        self.events.subscribe(self.heard.append)
        self.events.subscribe(other.append)
        told = [event(CREATED), event(ended())]
        for one in told:
            self.events.publish(one)
        self.assertEqual((self.heard, other), (told, told))

    def test_nothing_after_unsubscribing_even_twice(self) -> None:
        unsubscribe = self.events.subscribe(self.heard.append)
        unsubscribe()
        unsubscribe()
        self.events.publish(event())
        self.assertEqual(self.heard, [])

    def test_a_listener_that_fails_disturbs_nobody(self) -> None:
        def fail(_: CallEvent) -> None:
            raise RuntimeError("told to fail")

        self.events.subscribe(fail)
        self.events.subscribe(self.heard.append)
        self.events.publish(event())
        self.assertEqual(len(self.heard), 1)
        [logged] = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(str(logged.value), "told to fail")

    def test_a_listener_may_leave_and_come_while_it_is_told(self) -> None:
        def once(told: CallEvent) -> None:
            leave()
            self.heard.append(told)
            self.events.subscribe(self.heard.append)

        leave = self.events.subscribe(once)
        self.events.publish(event(CREATED))
        self.events.publish(event(READY))
        self.assertEqual([one.kind for one in self.heard], ["call.created", "call.ready"])


class LogTests(SynchronousTestCase):
    def logged(self, *told: CallEvent) -> list[tuple[LogLevel, str]]:
        log = EventLog()
        with capturedLogs() as captured:
            for one in told:
                log(one)
        return [(entry["log_level"], formatEvent(entry)) for entry in captured]

    def lines(self, *told: CallEvent) -> list[str]:
        return [line for _, line in self.logged(*told)]

    def test_of_the_end_how_it_ended(self) -> None:
        end = ended(outcome="completed", reason="the bot ended the call")
        [line] = self.lines(event(end))
        wanted = "42 call.ended outcome=completed reason=the bot ended the call duration=1.5"
        self.assertEqual(line, wanted)

    def test_a_line_for_what_an_operator_wants_to_see(self) -> None:
        for told, line in (
            (CREATED, "42 call.created peer=10.0.0.9:5 direction=in"),
            (READY, "42 call.ready by=audio runner=http://a seconds=0.5"),
            (BotLost("reset", "http://a"), "42 bot.lost reason=reset runner=http://a"),
            (BotResumed(1, "http://b"), "42 bot.resumed resumption=1 runner=http://b"),
            (BotError("start", "503"), "42 bot.error category=start text=503"),
            (HangsUp(""), "42 hangup"),
            (Transfer("support"), "42 transfer target=support"),
            (Plays("12#"), "42 play-dtmf digits=12#"),
        ):
            self.assertEqual(self.lines(event(told)), [line])

    def test_levels(self) -> None:
        told = [READY, BotLost("reset", ""), BotError("start", ""), Rejected("", "")]
        told.append(Warned("bot-error", "no key"))
        levels = [level.name for level, _ in self.logged(*map(event, told))]
        self.assertEqual(levels, ["info", "warn", "warn", "warn", "warn"])

    def test_no_line_for_what_is_said(self) -> None:
        told = (
            Turn("caller", "secret", 1.0, 1.5),
            Message({"text": "secret"}),
            Variables({"PIN": "secret"}),
        )
        self.assertEqual(self.lines(*map(event, told)), [])

    def test_what_a_peer_sent_stays_on_the_line(self) -> None:
        [line] = self.lines(event(ended(reason="bye\r\n43 call.created\x1b[2J\u2028")))
        self.assertEqual(line.splitlines(), [line])
        self.assertIn(r"bye\r\n43 call.created\x1b[2J\u2028 ", line)

    def test_many_lines_of_one_call_are_a_few_and_a_count(self) -> None:
        flood = [event(Interrupted()) for _ in range(1000)]
        other = event(Interrupted(), "43")
        last = event(Dtmf("1"))
        lines = self.lines(event(CREATED), *flood, other, event(ended()), last)
        self.assertEqual(lines[1 : LINES + 2], ["42 interrupted"] * LINES + ["43 interrupted"])
        count = f"42 {1000 - LINES} lines about events were left out: too many in a second"
        told = [count, "42 call.ended duration=1.5", "42 dtmf digit=1"]
        self.assertEqual(lines[LINES + 2 :], told)

    def test_the_count_comes_with_the_next_line(self) -> None:
        flood = [event(Dtmf("1")) for _ in range(LINES + 5)]
        lines = self.lines(event(CREATED), *flood, event(Plays("2"), time=2.5))
        self.assertIn("42 5 lines", lines[-2])
        self.assertEqual(lines[-1], "42 play-dtmf digits=2")

    def test_what_a_call_has_once_is_always_told(self) -> None:
        once: tuple[Data, ...] = (
            BotLost("reset", ""),
            BotResumed(1, ""),
            READY,
            ended(),
            HangsUp(""),
            RecordingReady(1.0, 5, "wav"),
            RecordingStarted(),
            Transfer("support"),
        )
        self.assertEqual({event(data).kind for data in once} | {"call.created"}, ALWAYS)
        self.assertEqual(ALWAYS - LOGGED, set())
        flood = [event(Interrupted()) for _ in range(LINES + 5)]
        for data in once:
            told = event(data)
            line = self.lines(event(CREATED), *flood, told)[-1]
            self.assertTrue(f"{line} ".startswith(f"42 {told.kind} "), line)

    def test_many_phones_that_are_refused(self) -> None:
        refused = Rejected("10.0.0.9:5", "full")
        lines = self.lines(*(event(refused, str(number)) for number in range(1000)))
        self.assertEqual(len(lines), LINES)

    def test_braces_are_no_format(self) -> None:
        [line] = self.lines(event(Dtmf("{call_id}")))
        self.assertEqual(line, "42 dtmf digit={call_id}")


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = Events()
        self.told: list[CallEvent] = []
        self.events.subscribe(self.told.append)
        self.history = History("42", self.events, lambda: 1.5)

    def data(self) -> list[Any]:
        return [json.loads(bytes(kept.data)) for kept in self.history]

    def test_what_goes_out_is_kept_as_it_goes_out(self) -> None:
        self.history.tell(Dtmf("1"))
        [told] = self.told
        self.assertEqual(list(self.history), [envelope(told)])
        self.assertEqual((told.call_id, told.time, told.data), ("42", 1.5, Dtmf("1")))

    def test_notes_and_the_end_are_told_and_not_kept(self) -> None:
        for data in (Warned("bot-error", ""), Rejected("", ""), HangsUp(""), Plays("1"), ended()):
            self.history.tell(data)
        self.assertEqual((len(self.told), len(self.history)), (5, 0))

    def test_bounds(self) -> None:
        for number in range(MAX_EVENTS + 1):
            self.history.tell(Dtmf(str(number)))
        self.assertEqual(len(self.history), MAX_EVENTS)
        self.assertEqual(self.data()[0], {"digit": "1"})
        longest = "x" * (MAX_MESSAGE_BYTES - 2)  # and the quotes around it
        for _ in range(MAX_EVENTS):
            self.history.tell(Message(longest))
        kept = self.data()
        self.assertEqual(kept, [{"data": longest}] * len(kept))
        size = len(msgspec.json.encode({"data": longest}))
        self.assertEqual(len(kept), MAX_BYTES // size)
        self.assertEqual(len(self.told), 2 * MAX_EVENTS + 1)

    def test_a_longer_message_is_left_out_and_its_event_kept(self) -> None:
        self.history.tell(Message("x" * (MAX_MESSAGE_BYTES - 1)))
        [kept] = self.history
        self.assertEqual((kept.kind, kept.call_id, kept.time), ("message", "42", 1.5))
        omitted = {"omitted": f"{MAX_MESSAGE_BYTES + 1} bytes"}
        self.assertEqual(self.data(), [{"data": omitted}])
        self.assertEqual(self.told[0].data, Message(omitted))


class TallyTests(SynchronousTestCase):
    def test_idle_fires_at_zero_each_time(self) -> None:
        tally = Tally()
        self.successResultOf(tally.idle())
        for _ in range(2):
            tally.enter()
            tally.enter()
            waiting = [tally.idle(), tally.idle()]
            tally.leave()
            for one in waiting:
                self.assertNoResult(one)
            tally.leave()
            for one in waiting:
                self.successResultOf(one)

    def test_waiting_may_be_given_up(self) -> None:
        tally = Tally()
        tally.enter()
        given_up, waiting = tally.idle(), tally.idle()
        given_up.cancel()
        self.failureResultOf(given_up)
        tally.leave()
        self.successResultOf(waiting)

    def test_who_hears_it_may_enter_again(self) -> None:
        tally = Tally()
        tally.enter()
        tally.idle().addCallback(lambda _: tally.enter())
        tally.leave()
        self.assertNoResult(tally.idle())
