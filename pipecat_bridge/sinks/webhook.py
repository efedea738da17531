"""What is sent to a webhook, and what follows from its answer.

The headers are those of Standard Webhooks (specification of the Standard Webhooks project, version
1.0.0): an id that stays the same over all attempts, the time of the attempt, and signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from enum import Enum
from typing import Final

PREFIX: Final = "whsec_"
"""How a secret may begin. The rest is base64."""

SECRET_BYTES: Final = (24, 64)
"""Least and most bytes of a secret, as the specification wants them."""

GIVE_UP: Final = 72 * 3600.0
"""Seconds after which an event that was not delivered is dead."""

FIRST: Final = 5.0
LONGEST: Final = 4 * 3600.0
FACTOR: Final = 4.0
"""Seconds before the second attempt, most seconds before any, and how many times as long each wait
is as the one before: 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 4 h, 4 h, ..."""

JITTER: Final = 0.2
"""A wait is longer by up to this part, so that hooks that failed together do not try together."""

AGAIN: Final = (408, 425, 429)
"""Answers of the receiver's side after which the same request may succeed later."""


class Verdict(Enum):
    """What follows from an answer."""

    DELIVERED = "delivered"
    AGAIN = "again"  # later
    DEAD = "dead"  # this event will never be taken
    OFF = "off"  # nor will any other: the hook is switched off


def judge(status: int | None) -> Verdict:
    """The verdict on an answer; `status` is None if none came.

    Redirects are not followed: who wants events elsewhere gives another URL. But a receiver may
    redirect for some time only.
    """
    if status is not None and 200 <= status < 300:
        return Verdict.DELIVERED
    if status is None or status >= 500 or status < 400 or status in AGAIN:
        return Verdict.AGAIN
    return Verdict.OFF if status == 410 else Verdict.DEAD


def wait(attempts: int, age: float, asked: float, chance: float) -> float | None:
    """Seconds until the next attempt, after `attempts` of them; None if it is over.

    `age`: seconds since the event. `asked`: seconds that the receiver wants (Retry-After), or 0.
    `chance`: a random number from 0 to 1.
    """
    if age >= GIVE_UP:
        return None
    own = min(FIRST * FACTOR ** min(attempts - 1, 20), LONGEST) * (1 + JITTER * chance)
    # The last attempt is at the end of the time, not after it.
    return min(max(own, min(asked, LONGEST)), max(GIVE_UP - age, 1.0))


def key_of(secret: str) -> bytes:
    """The key of a secret as it is written in the configuration. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("expected base64, with or without whsec_ before it") from None
    least, most = SECRET_BYTES
    if not least <= len(key) <= most:
        raise ValueError(f"{len(key)} bytes, expected {least} to {most} in base64")
    return key


def headers(event_id: str, now: float, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers of an attempt at `now`, in seconds since the epoch: a signature for each key, so
    that the receiver may change from one to the next."""
    stamp = str(int(now))
    signed = b"%b.%b.%b" % (event_id.encode(), stamp.encode(), body)
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests),
    }
