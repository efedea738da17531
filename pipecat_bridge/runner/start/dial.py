"""Runner modes `dial`, `direct` and `twilio`: the bridge dials the bot's WebSocket."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed

from pipecat_bridge import __version__
from pipecat_bridge.audio import g711
from pipecat_bridge.net.http import Answer, RunnerClient, RunnerError
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.address import RunnerAddress, without_secrets
from pipecat_bridge.runner.request import BotRequest
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.start.target import Target, from_answer
from pipecat_bridge.wire.dialect import Dialect
from pipecat_bridge.wire.pipecat import PipecatDialect
from pipecat_bridge.wire.twilio import TwilioDialect


class Dial:
    """Has bots started by `/start`, where the runner's URL is of HTTP, and dials them.

    The body of `/start` brings the call's parameters and metadata; Pipecat's development runner
    drops it, and a `ws://` URL has none, so they go in band as well.
    """

    def __init__(
        self, client: RunnerClient, dialler: Dialler, options: RunnerOptions, rate: int
    ) -> None:
        self.client = client
        self.dialler = dialler
        self.options = options
        self._rate = rate

    @property
    def takes_text(self) -> bool:
        """Twilio's protocol has no words for it."""
        return self.options.mode != "twilio"

    def dialect(self, request: BotRequest) -> Dialect:
        """Twilio's in mode `twilio`, else Pipecat's."""
        if self.options.mode == "twilio":
            return TwilioDialect(
                request.call_id,
                request.metadata,
                self._parameters(request),
                request.resumption,
                encode=partial(g711.encode, "ulaw"),
                decode=partial(g711.decode, "ulaw"),
            )
        told = {**request.described(), "parameters": self._parameters(request)}
        return PipecatDialect(self._rate, __version__, metadata=told, disconnects=True)

    def attempt(self, request: BotRequest, link: BotLink, address: RunnerAddress) -> DialAttempt:
        """A start at the runner at `address`."""
        return DialAttempt(self, request, link, address)

    def body(self, request: BotRequest) -> dict[str, Any]:
        """The body of `/start`, as Pipecat's runners and Pipecat Cloud read it."""
        own = self.options.start_body
        transport = "twilio" if self.options.mode == "twilio" else "websocket"
        described = {**self._parameters(request), **request.described()}
        return {"transport": transport, **own, "body": {**own.get("body", {}), **described}}

    def _parameters(self, request: BotRequest) -> dict[str, Any]:
        return {**self.options.parameters, **request.parameters}

    def fixed(self, url: str) -> Target:
        """A bot that needs no start; the configured headers go into the handshake."""
        return Target(url, dict(self.options.headers))


class DialAttempt:
    """One start and one WebSocket, whose close is all that ends the bot."""

    def __init__(
        self, mode: Dial, request: BotRequest, link: BotLink, address: RunnerAddress
    ) -> None:
        self._mode = mode
        self._request = request
        self._link = link
        self._address = address
        self._redact = mode.client.redact
        self.unconnected = "the runner's address was not known"

    async def ask(self) -> None:
        """Ask for the bot and dial it; raises RunnerError."""
        base = await self._address.url()
        if urlsplit(base).scheme in ("ws", "wss"):
            target = self._mode.fixed(base)
        else:
            target = await self._target(base)
        where = self._redact(without_secrets(target.url))
        self.unconnected = f"the bot's WebSocket at {where} was not open"
        target = target._replace(redact=self._redact)
        try:
            await self._mode.dialler.dial(target, self._link)
        except RunnerError as error:
            raise error.prefixed(f"its WebSocket at {where}: ", self._redact) from None

    async def _target(self, base: str) -> Target:
        """Where `/start` says that the bot is."""
        options = self._mode.options
        path = options.start_path.partition("?")[0]
        body = self._mode.body(self._request)
        self.unconnected = f"{path} was not answered"
        try:
            answer = await self._mode.client.request("POST", base + options.start_path, body)
            self._redact = answer.redact
            answer.check()
            said = _read(answer)
            self._redact = answer.redact.including(said)  # with the token of the bot
            return from_answer(said, base, options.allowed_hosts, options.token_in)
        except RunnerError as error:
            raise error.prefixed(f"{path}: ", self._redact) from None

    def stop(self) -> Deferred[None]:
        """Nothing is to be told: the close of the WebSocket is the end."""
        return succeed(None)


def _read(answer: Answer) -> Any:
    """The answer as JSON; raises RunnerError, without the text, in which a token may be."""
    try:
        return answer.json()
    except RunnerError:
        raise RunnerError(f"an answer of {len(answer.body)} bytes that is not JSON") from None
