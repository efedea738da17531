"""Runner mode `dialback`: POST /run, the runner dials back, POST /stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.options import CallerAudioOptions, RunnerOptions
from pipecat_bridge.runner.client import Answer, RunnerClient, RunnerError
from pipecat_bridge.runner.link import BotLink, LinkListener
from pipecat_bridge.runner.websocket import BotSocketFactory
from pipecat_bridge.tally import Tally


class BotListener(LinkListener, Interface):
    """Who wants to know what became of the bot."""

    def bot_failed(self, reason: str) -> None:
        """It could not be started."""


class RunnerAddress(Interface):
    """Where the runner is; one that is being started may not be known yet."""

    def url(self) -> Deferred[str]:
        """Its base URL, without a slash at the end."""


@dataclass(frozen=True, slots=True)
class FixedAddress:
    """A runner whose URL is configured."""

    base: str

    def url(self) -> Deferred[str]:
        """The configured URL."""
        return succeed(self.base.rstrip("/"))


@dataclass(frozen=True, slots=True)
class BotRequest:
    """What is told to the runner about a call."""

    call_id: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]


class DialBack:
    """Starts bots by `/run` and takes the sockets they dial back.

    `stopping` counts the `/stop` requests that are under way.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: RunnerClient,
        address: RunnerAddress,
        door: BotSocketFactory,
        dialback_url: Callable[[], str],
        options: RunnerOptions,
        audio: CallerAudioOptions,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.client = client
        self.address = address
        self.door = door
        self.options = options
        self._dialback_url = dialback_url
        self._audio = audio
        self._now = now
        self.stopping = Tally()

    def bot(self, request: BotRequest, playout: Playout, listener: BotListener) -> DialBackBot:
        """A bot for one call; it is asked for by `start`."""
        link = BotLink(
            request.call_id,
            self.reactor,
            playout,
            listener,
            self._audio,
            self.options.ready_timeout,
            self._now,
        )
        return DialBackBot(self, request, link, listener)

    def body(self, request: BotRequest, token: str) -> dict[str, Any]:
        """The body of `/run`."""
        base = self._dialback_url().rstrip("/")
        return {
            **self.options.parameters,
            **request.parameters,
            "id": request.call_id,
            "metadata": request.metadata,
            # The token is part of the path: a runner that appends ?direction=.. cannot break it.
            "ws_url": f"{base}/{request.call_id}/ws/{token}",
        }

    def send_stop(self, call_id: str, base: str) -> None:
        """Send `/stop` for one call; what comes of it is only logged."""
        self.stopping.enter()
        sending = Deferred.fromCoroutine(self._send_stop(call_id, base))
        sending.addBoth(lambda _: self.stopping.leave())

    async def _send_stop(self, call_id: str, base: str) -> None:
        try:
            answer = await self.client.request("POST", f"{base}/stop?id={quote(call_id)}")
        except RunnerError as error:
            self._log.warn("{call_id} /stop failed: {error}", call_id=call_id, error=error)
            return
        if answer.status not in (200, 404):
            self._log.warn(
                "{call_id} /stop was answered with {status}",
                call_id=call_id,
                status=answer.status,
            )

    async def reachable(self) -> bool:
        """Whether the runner answers at all."""
        try:
            base = await self.address.url().addTimeout(1.0, self.reactor)
            await self.client.request("GET", f"{base}/health", timeout=2.0)
        except Exception:  # noqa: BLE001 - whatever it was, it was no answer
            return False
        return True


class DialBackBot:
    """A bot that is asked for by `/run`, dials back, and is let go by `/stop`, once."""

    _log = Logger()

    def __init__(
        self, runner: DialBack, request: BotRequest, link: BotLink, listener: BotListener
    ) -> None:
        self.link = link
        self._runner = runner
        self._request = request
        self._listener = listener
        self._asked = ""  # the runner's URL, once /run has been sent to it
        self._starting: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Send `/run`; the listener hears the rest."""
        timeout = self._runner.options.connect_timeout
        self._deadline = self._runner.reactor.callLater(timeout, self._too_late)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._not_started)

    async def _start(self) -> None:
        token = self._runner.door.expect(self.link)
        base = await self._runner.address.url()
        self._asked = base
        body = self._runner.body(self._request, token)
        try:
            answer = await self._runner.client.request("POST", f"{base}/run", body)
            _check(_without_keys(answer, body))
        except RunnerError as error:
            raise RunnerError(f"/run: {error}") from None

    def _not_started(self, failure: Any) -> None:
        if not self._stopped and not failure.check(CancelledError):
            reason = failure.getErrorMessage()
            if not failure.check(RunnerError):
                self._log.failure(
                    "{call_id} cannot start the bot", failure, call_id=self.link.call_id
                )
            self._listener.bot_failed(reason)

    def _too_late(self) -> None:
        if not self.link.connected:
            seconds = self._runner.options.connect_timeout
            self._listener.bot_failed(f"the runner has not dialled back within {seconds:g} s")

    def stop(self) -> None:
        """Close its sockets and send `/stop`."""
        if self._stopped:
            return
        self._stopped = True
        # What points back is let go, so that the call leaves memory without a garbage collection.
        del self._listener
        self._runner.door.forget(self.link.call_id)
        self.link.close()
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self._starting is not None:
            self._starting.cancel()
        self._deadline = self._starting = None
        if self._asked:
            self._runner.send_stop(self.link.call_id, self._asked)


def _check(answer: Answer) -> None:
    """Raise RunnerError for an answer to `/run` that is no consent."""
    if answer.status != 200:
        raise RunnerError(f"answered with {answer.status}: {_excerpt(answer.body)}")
    said = answer.json()
    if isinstance(said, dict) and said.get("status", "ok") != "ok":
        raise RunnerError(f"answered with {_excerpt(answer.body)}")


def _without_keys(answer: Answer, sent: dict[str, Any]) -> Answer:
    """A runner that refuses may repeat what it was sent, and its words get into log and API."""
    body = answer.body
    for name, value in sent.items():
        if name.endswith("_key") and value:
            body = body.replace(str(value).encode(), b"***")
    return Answer(answer.status, body)


def _excerpt(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return text[:200] or "no text"
