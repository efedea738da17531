"""The HTTP API of the embedded runner: `/run`, `/stop`, `/health` and `/status`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from aiohttp import web
from loguru import logger

from .calls import BotCalls
from .spec import RefusedError, read_spec

_BODY_LIMIT = 1 << 20


class App:
    """Answers requests in JSON. An error is `{"error": sentence}`."""

    def __init__(self, calls: BotCalls, sockets: int = 1) -> None:
        """`sockets`: how many WebSockets a call dials, 1 or 2, if the body of `/run` has none."""
        self._calls = calls
        self._sockets = sockets

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=_BODY_LIMIT, middlewares=[_errors_as_json])
        application.router.add_post("/run", self.run)
        application.router.add_post("/stop", self.stop)
        application.router.add_get("/health", self.health)
        application.router.add_get("/status", self.status)
        return application

    async def run(self, request: web.Request) -> web.Response:
        """Start a call."""
        spec = read_spec(_decoded(await request.text()), self._sockets)
        self._calls.start(spec)
        return web.json_response({"status": "ok", "id": spec.id})

    async def stop(self, request: web.Request) -> web.Response:
        """End the call named by `?id=`."""
        call_id = request.query.get("id", "")
        if not call_id:
            raise RefusedError(400, "id is missing; expected POST /stop?id=ID")
        if not await self._calls.stop(call_id):
            raise RefusedError(404, f'there is no call "{call_id}"')
        return web.json_response({"status": "ok", "id": call_id})

    async def health(self, request: web.Request) -> web.Response:
        """Answer that the runner works, and how many calls it has."""
        return web.json_response({"status": "ok", "calls": len(self._calls)})

    async def status(self, request: web.Request) -> web.Response:
        """Answer how many calls the runner has, and the version of Pipecat."""
        return web.json_response(
            {"status": "ok", "calls": len(self._calls), "pipecat": version("pipecat-ai")}
        )


def _decoded(body: str) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON ({error}); expected an object") from error


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as refused:
        logger.warning(f"{request.method} {request.path}: {refused}")
        return web.json_response({"error": str(refused)}, status=refused.status)
    except web.HTTPException as error:
        sentence = f"{request.method} {request.path}: {error.reason}"
        return web.json_response({"error": sentence}, status=error.status)
