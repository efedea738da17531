"""`/v1/webhooks`: what waits for receivers of events, what they did not take, and how to send it
again."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from pipecat_bridge.errors import brief
from pipecat_bridge.net.urls import shown_url
from pipecat_bridge.sinks.courier import Courier
from pipecat_bridge.sinks.webhooks import Webhooks
from pipecat_bridge.store import outbox
from pipecat_bridge.store.outbox import Delivery
from pipecat_bridge.store.store import Store
from pipecat_bridge.web.archive import away
from pipecat_bridge.web.problem import ProblemError
from pipecat_bridge.web.query import limit_of, number_of
from pipecat_bridge.web.resource import JSONResource, NotFound, Reply, json_of
from pipecat_bridge.web.stream import stored_envelope

MOST: Final = 200
"""Dead events of an answer."""


class AgainBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/webhooks/{name}/dead`."""

    number: int = 0  # all of them


class WebhooksResource(Resource):
    """`/v1/webhooks` and the paths below it."""

    def __init__(self, webhooks: Webhooks | None, store: Store | None) -> None:
        super().__init__()
        self._couriers = webhooks.couriers if webhooks is not None else []
        self._store = store

    def getChild(self, path: bytes, request: Request) -> Resource:
        name = path.decode("utf-8", "replace")
        rest = [part for part in request.postpath or [] if part]
        request.postpath = []
        if not name:
            return JSONResource(GET=self._list)
        if rest != [b"dead"]:
            return NotFound()
        return JSONResource(
            GET=lambda request: self._dead(name, request),
            POST=lambda request: self._again(name, request),
        )

    def render(self, request: Request) -> bytes | int:
        return JSONResource(GET=self._list).render(request)

    def _list(self, request: Request) -> Reply:
        return 200, {"webhooks": [_shown(courier) for courier in self._couriers]}

    def _courier(self, name: str) -> tuple[Courier, Store]:
        for courier in self._couriers:
            if courier.hook.name == name and self._store is not None:
                return courier, self._store
        raise ProblemError(404, f"no webhook {brief(name)}: see /v1/webhooks")

    def _dead(self, name: str, request: Request) -> Deferred[Reply]:
        _, store = self._courier(name)
        arguments = {
            key: several[-1].decode("utf-8", "replace")
            for key, several in (request.args or {}).items()
        }
        limit = limit_of(arguments.get(b"limit", ""), MOST, MOST)
        after = number_of(arguments.get(b"after", "0"))
        if after < 0:
            raise ProblemError(400, "after: expected the number of a dead event")
        reading = store.read(outbox.dead, name, after, limit)
        return reading.addCallbacks(
            lambda found: (200, {"dead": [_letter(each) for each in found]}), away
        )

    def _again(self, name: str, request: Request) -> Reply:
        """Send dead events once more. A webhook that was switched off is on again."""
        courier, _ = self._courier(name)
        wanted = json_of(request, AgainBody, '{"number": 7}, or nothing', default=b"{}")
        courier.send_again(wanted.number)
        return 202, {"name": name, "sent": True}


def _shown(courier: Courier) -> dict[str, Any]:
    hook, depth = courier.hook, courier.depth
    return {
        "name": hook.name,
        "url": shown_url(hook.url),
        "kinds": hook.kinds,
        "waiting": depth.waiting,
        "oldest": depth.oldest,
        "dead": depth.dead,
        "off": courier.off,
        "attempts": dict(courier.results),
    }


def _letter(delivery: Delivery) -> dict[str, Any]:
    return {
        "number": delivery.number,
        "attempts": delivery.attempts,
        "told": delivery.told,
        "event": stored_envelope(delivery.event),
    }
