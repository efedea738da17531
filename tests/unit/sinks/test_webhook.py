"""What is sent to webhooks, and when again."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.sinks.webhook import (
    FIRST,
    GIVE_UP,
    JITTER,
    LONGEST,
    Verdict,
    headers,
    judge,
    key_of,
    wait,
)


class VerdictTests(SynchronousTestCase):
    def test_every_answer(self) -> None:
        for verdict, statuses in {
            Verdict.DELIVERED: (200, 201, 202, 204),
            Verdict.AGAIN: (None, 301, 302, 307, 308, 408, 425, 429, 500, 502, 503, 504, 599),
            Verdict.DEAD: (400, 401, 403, 404, 409, 422),
            Verdict.OFF: (410,),
        }.items():
            for status in statuses:
                with self.subTest(status=status):
                    self.assertIs(judge(status), verdict)


class WaitTests(SynchronousTestCase):
    def test_attempts_until_the_end(self) -> None:
        age, waits = 0.0, []
        while (seconds := wait(len(waits) + 1, age, 0.0, 0.0)) is not None:
            waits.append(seconds)
            age += seconds
        self.assertEqual(waits[:7], [5, 20, 80, 320, 1280, 5120, LONGEST])
        self.assertEqual(age, GIVE_UP)
        self.assertLess(len(waits), 30)

    def test_what_the_receiver_asks_for(self) -> None:
        self.assertEqual(wait(1, 0.0, 60.0, 0.0), 60.0)
        self.assertEqual(wait(4, 0.0, 60.0, 0.0), 320.0)
        self.assertEqual(wait(1, 0.0, 1e9, 0.0), LONGEST)

    @given(
        st.integers(1, 10_000),
        st.floats(0, 2 * GIVE_UP),
        st.floats(0, 1e12),
        st.floats(0, 1),
    )
    def test_bounds(self, attempts: int, age: float, asked: float, chance: float) -> None:
        seconds = wait(attempts, age, asked, chance)
        if age >= GIVE_UP:
            self.assertIsNone(seconds)
        else:
            assert seconds is not None
            self.assertLessEqual(seconds, LONGEST * (1 + JITTER))
            self.assertLessEqual(age + seconds, max(GIVE_UP, age + 1))
            self.assertGreaterEqual(seconds, min(FIRST, max(GIVE_UP - age, 1.0)))


class SignatureTests(SynchronousTestCase):
    def test_the_example_of_the_specification(self) -> None:
        """Of the reference libraries, whose tests have it."""
        key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        found = headers(
            "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.7, b'{"test": 2432232314}', [key]
        )
        self.assertEqual(
            found,
            {
                "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp": "1614265330",
                "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            },
        )

    def test_a_signature_for_each_key(self) -> None:
        keys = [bytes(24), bytes(range(32))]
        both = headers("e", 1.0, b"x", keys)["webhook-signature"].split(" ")
        each = [headers("e", 1.0, b"x", [key])["webhook-signature"] for key in keys]
        self.assertEqual(both, each)

    def test_secrets(self) -> None:
        for length in (24, 32, 64):
            key = bytes(range(length))
            text = base64.b64encode(key).decode()
            self.assertEqual((key_of(text), key_of(f"whsec_{text}")), (key, key))
        for text, reason in (
            ("secret!", "expected base64"),
            ("", "0 bytes"),
            (base64.b64encode(bytes(23)).decode(), "23 bytes, expected 24 to 64"),
            (base64.b64encode(bytes(65)).decode(), "65 bytes"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                key_of(text)
