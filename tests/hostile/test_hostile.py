"""An innocent call does not feel a hostile peer.

A daemon carries an innocent call, and one hostile peer attacks it. The call's phone must get its
frames, none may be lost in either direction, and the daemon's memory must be what it was. If it is
not, the same attack is made once more, and must leave nothing more.

The longest gap between two frames is a matter of real time, and a machine that stands still would
fail any bound. So a control runs beside the measurement (`control.py`): what it was late as well,
and what the daemon waited for a processor, is taken off the gap in which it happened. The table at
the end has the gap before that in brackets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.hostile.conftest import LONG
from tests.hostile.line import MOST_GROWTH, MOST_ONCE, AttackedDaemon, Row
from tests.hostile.peer import HostilePeer, Mode
from tests.hostile.peers import PEERS

LONGEST_GAP: Final = 45.0
"""Milliseconds. Frames are 20 ms apart; Asterisk has up to 60 ms in store."""

ON_A_BUSY_MACHINE: Final = 70.0
"""The same in the short form, which runs on machines that others use as well. Code that has not run
for seconds takes 20 ms for the end of a call there, whoever ends it."""


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_is_not_felt(
    peer: HostilePeer, attacked: Callable[[Mode], AttackedDaemon], rows: list[Row], seconds: float
) -> None:
    row = attacked(peer.mode).beside(peer, seconds)
    rows.append(row)
    assert row.connections, "the peer got no connection"
    assert not row.over, f"the innocent call was ended: {row.over}"
    longest = LONGEST_GAP if seconds >= LONG else ON_A_BUSY_MACHINE
    assert row.gap <= longest, f"{row.gap} ms without a frame"
    assert row.lost_to_bot < 1, f"{row.lost_to_bot} frames of the caller did not come to the bot"
    assert row.lost_to_phone < 1, f"{row.lost_to_phone} frames of the bot did not come to the phone"
    assert row.growth <= MOST_ONCE, f"{row.before} MB before, and {row.after} MB after"
    assert row.again <= MOST_GROWTH, f"each attack leaves {row.again} MB more"
