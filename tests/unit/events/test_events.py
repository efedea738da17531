"""Events reach all listeners, are kept within limits, and are logged on one line each."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.events import ALWAYS, LINES, CallEvent, EventLog, Events
from pipecat_bridge.events.history import MAX_BYTES, MAX_EVENT_BYTES, MAX_EVENTS, History
from pipecat_bridge.net.tally import Tally


def event(kind: str = "ready", **data: Any) -> CallEvent:
    return CallEvent("42", 1.5, kind, data)


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = Events()
        self.heard: list[CallEvent] = []

    def test_all_listeners_hear_all_events_in_order(self) -> None:
        other: list[CallEvent] = []
        self.events.subscribe(self.heard.append)
        self.events.subscribe(other.append)
        told = [event("created"), event("terminated")]
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
        self.events.publish(event("created"))
        self.events.publish(event("ready"))
        self.assertEqual([one.kind for one in self.heard], ["created", "ready"])


class LogTests(SynchronousTestCase):
    def lines(self, *told: CallEvent) -> list[str]:
        log = EventLog()
        with capturedLogs() as captured:
            for one in told:
                log(one)
        return [formatEvent(entry) for entry in captured]

    def test_a_line_for_what_an_operator_wants_to_see(self) -> None:
        [line] = self.lines(event("terminated", outcome="completed", reason="", duration=1.5))
        self.assertEqual(line, "42 terminated outcome=completed duration=1.5")

    def test_a_line_for_what_a_bot_does(self) -> None:
        for told, line in (
            (event("bot-lost", reason="reset"), "42 bot-lost reason=reset"),
            (event("ready", by="audio", runner="http://a"), "42 ready by=audio runner=http://a"),
            (event("hangup", reason=""), "42 hangup"),
            (event("transfer", target="support"), "42 transfer target=support"),
            (event("play-dtmf", digits="12#"), "42 play-dtmf digits=12#"),
        ):
            self.assertEqual(self.lines(told), [line])

    def test_no_line_for_what_a_bot_says(self) -> None:
        kinds = ("bot-llm-text", "user-transcription", "metrics", "rtvi", "server-message", "set")
        self.assertEqual(self.lines(*(event(kind, text="secret") for kind in kinds)), [])

    def test_what_a_peer_sent_stays_on_the_line(self) -> None:
        [line] = self.lines(
            event("terminated", reason="bye\r\n43 created\x1b[2J\u2028", duration=1)
        )
        self.assertEqual(line.splitlines(), [line])
        self.assertIn(r"bye\r\n43 created\x1b[2J\u2028 ", line)

    def test_many_lines_of_one_call_are_a_few_and_a_count(self) -> None:
        flood = [event("interrupted") for _ in range(1000)]
        other = CallEvent("43", 1.5, "interrupted", {})
        lines = self.lines(event("created"), *flood, other, event("terminated"), event("dtmf"))
        count = f"42 {1000 - LINES} lines about events were left out: too many in a second"
        told = ["42 created", *["42 interrupted"] * LINES, "43 interrupted", count]
        self.assertEqual(lines, [*told, "42 terminated", "42 dtmf"])

    def test_the_count_comes_with_the_next_line(self) -> None:
        flood = [event("dtmf") for _ in range(LINES + 5)]
        later = CallEvent("42", 2.5, "play-dtmf", {})
        lines = self.lines(event("created"), *flood, later)
        self.assertIn("42 5 lines", lines[-2])
        self.assertEqual(lines[-1], "42 play-dtmf")

    def test_what_a_call_has_once_is_always_told(self) -> None:
        flood = [event("interrupted") for _ in range(LINES + 5)]
        for kind in ALWAYS - {"created"}:
            self.assertEqual(self.lines(event("created"), *flood, event(kind))[-1], f"42 {kind}")

    def test_many_phones_that_are_refused(self) -> None:
        lines = self.lines(*(CallEvent(str(n), 1.5, "rejected", {}) for n in range(1000)))
        self.assertEqual(len(lines), LINES)

    def test_braces_are_no_format(self) -> None:
        [line] = self.lines(event("dtmf", digit="{call_id}"))
        self.assertEqual(line, "42 dtmf digit={call_id}")


class HistoryTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        history = History("42", Events(), lambda: 1.5)
        for number in range(MAX_EVENTS + 1):
            history.append(event(number=number))
        self.assertEqual(len(history), MAX_EVENTS)
        self.assertEqual(next(iter(history)).data, {"number": 1})
        longest = "x" * (MAX_EVENT_BYTES - 11)  # and {"text":""} around it
        for _ in range(MAX_EVENTS):
            history.append(event(text=longest))
        self.assertEqual([one.data["text"] for one in history], [longest] * len(history))
        self.assertEqual(len(history), MAX_BYTES // MAX_EVENT_BYTES)

    def test_longer_data_is_left_out_and_its_event_kept(self) -> None:
        history = History("42", Events(), lambda: 1.5)
        history.append(event("server-message", text="x" * (MAX_EVENT_BYTES - 10)))
        [kept] = history
        self.assertEqual((kept.kind, kept.call_id, kept.time), ("server-message", "42", 1.5))
        self.assertEqual(kept.data, {"omitted": f"{MAX_EVENT_BYTES + 1} bytes"})


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
