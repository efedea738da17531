"""Runner modes `dial`, `direct` and `twilio`: the bridge dials the bot's WebSocket."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed

from pipecat_bridge import __version__
from pipecat_bridge.audio import g711
from pipecat_bridge.contracts import BotRequest
from pipecat_bridge.errors import BlameError
from pipecat_bridge.options import Options
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.address import RunnerAddress, without_secrets
from pipecat_bridge.runner.socket.target import Target
from pipecat_bridge.runner.start.mode import Means
from pipecat_bridge.runner.start.target import from_answer
from pipecat_bridge.wire.pipecat import PipecatDialect
from pipecat_bridge.wire.twilio import TwilioDialect


def pipecat_dialect(request: BotRequest, options: Options) -> PipecatDialect:
    """The dialect of Pipecat's frames. The call's parameters and metadata go over the WebSocket as
    well, because Pipecat's own runner drops the body of `/start`, and a `ws://` URL has no body."""
    told = {**request.described(), "parameters": _parameters(request, options)}
    rate = options.caller_audio.sample_rate
    return PipecatDialect(rate, __version__, metadata=told, disconnects=True)


def twilio_dialect(request: BotRequest, options: Options) -> TwilioDialect:
    """The dialect of Twilio Media Streams."""
    return TwilioDialect(
        request.call_id,
        request.metadata,
        _parameters(request, options),
        request.resumption,
        encode=partial(g711.encode, "ulaw"),
        decode=partial(g711.decode, "ulaw"),
    )


def _parameters(request: BotRequest, options: Options) -> dict[str, Any]:
    return {**options.runner.parameters, **request.parameters}


class Dial:
    """Dials bots. With an HTTP URL it first starts the bot by POST `/start`.

    `transport` is the value of "transport" in the body of `/start`.
    """

    def __init__(self, means: Means, transport: str) -> None:
        self.client = means.client
        self.dialler = means.dialler
        self.options = means.options
        self._transport = transport

    def attempt(self, request: BotRequest, link: BotLink, address: RunnerAddress) -> DialAttempt:
        """A start of a bot at the runner at `address`."""
        return DialAttempt(self, request, link, address)

    def body(self, request: BotRequest) -> dict[str, Any]:
        """The body of `/start`, as Pipecat's runners and Pipecat Cloud read it."""
        own = self.options.runner.start_body
        described = {**_parameters(request, self.options), **request.described()}
        body = {**own.get("body", {}), **described}
        return {"transport": self._transport, **own, "body": body}

    def fixed(self, url: str) -> Target:
        """The WebSocket of a bot that needs no start. The handshake gets the configured headers."""
        return Target(url, dict(self.options.runner.headers))


class DialAttempt:
    """One start and one WebSocket. The close of the WebSocket ends the bot."""

    def __init__(
        self, dial: Dial, request: BotRequest, link: BotLink, address: RunnerAddress
    ) -> None:
        self._dial = dial
        self._request = request
        self._link = link
        self._address = address
        self._redact = dial.client.redact
        self.unconnected = "the runner's address was not known"

    async def ask(self) -> None:
        """Start the bot and dial it. Raises PeerError and BridgeError."""
        base = await self._address.url()
        if urlsplit(base).scheme in ("ws", "wss"):
            target = self._dial.fixed(base)
        else:
            target = await self._target(base)
        where = self._redact(without_secrets(target.url))
        self.unconnected = f"the bot's WebSocket at {where} was not open"
        target = target._replace(redact=self._redact)
        try:
            await self._dial.dialler.dial(target, self._link)
        except BlameError as error:
            raise error.prefixed(f"the bot's WebSocket at {where}: ", self._redact) from None

    async def _target(self, base: str) -> Target:
        """Start the bot by POST `/start`; the WebSocket that the answer names."""
        options = self._dial.options.runner
        path = options.start_path.partition("?")[0]
        body = self._dial.body(self._request)
        self.unconnected = f"{path} was not answered"
        try:
            answer = await self._dial.client.request("POST", base + options.start_path, body)
            self._redact = answer.redact
            answer.check()
            said = answer.json(quotes=False)  # it may contain a token
            self._redact = answer.redact.including(said)  # `said` has the token of the bot
            return from_answer(said, base, options.allowed_hosts, options.token_in)
        except BlameError as error:
            raise error.prefixed(f"{path}: ", self._redact) from None

    def stop(self) -> Deferred[None]:
        """Fires at once: the close of the WebSocket ends the bot, and the runner is not told."""
        return succeed(None)
