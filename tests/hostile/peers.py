"""All hostile peers, by name."""

from __future__ import annotations

from typing import Final

from tests.hostile import bots, clients, phones
from tests.hostile.peer import HostilePeer

PEERS: Final[dict[str, HostilePeer]] = {
    peer.name: peer for peer in (*bots.PEERS, *phones.PEERS, *clients.PEERS)
}
