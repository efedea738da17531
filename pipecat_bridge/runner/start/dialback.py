"""Runner mode `dialback`: POST /run, the runner dials back, POST /stop."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pipecat_bridge import __version__
from pipecat_bridge.contracts import BotRequest
from pipecat_bridge.errors import BlameError, BridgeError, PeerError, PeerRefusedError
from pipecat_bridge.net.http import Answer
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.address import RunnerAddress
from pipecat_bridge.runner.start.mode import Means
from pipecat_bridge.wire.pipecat import PipecatDialect


def dialect(request: BotRequest, options: Options) -> PipecatDialect:
    """The dialect of Pipecat's frames. Metadata goes with `/run`, and the end with `/stop`."""
    return PipecatDialect(options.caller_audio.sample_rate, __version__)


class DialBack:
    """Starts bots by POST `/run`, and takes the sockets that they dial back."""

    _log = Logger()

    def __init__(self, means: Means) -> None:
        self.client = means.client
        self.dialback_server = means.dialback_server
        self._dialback_url = means.dialback_url
        self._parameters = means.options.runner.parameters
        self._stopping: dict[tuple[str, str], Tally] = {}

    def attempt(
        self, request: BotRequest, link: BotLink, address: RunnerAddress
    ) -> DialBackAttempt:
        """A start of a bot at the runner at `address`."""
        return DialBackAttempt(self, request, link, address)

    def body(self, request: BotRequest, token: str) -> dict[str, Any]:
        """The body of `/run`."""
        base = self._dialback_url().rstrip("/")
        return {
            **self._parameters,
            **request.parameters,
            **request.described(),
            # The token is in the path, so that a runner can append ?direction=.. to the URL.
            "ws_url": f"{base}/{request.call_id}/ws/{token}",
        }

    async def stopped(self, call_id: str, base: str) -> None:
        """Wait until no `/stop` of this call is under way at this runner.

        A second call may have the same UUID. A late `/stop` of the first call would end its bot.
        """
        stopping = self._stopping.get((call_id, base))
        if stopping is not None:
            await stopping.idle()

    async def send_stop(self, call_id: str, base: str) -> None:
        """Send `/stop` for one call. A failure is only logged."""
        stopping = self._stopping.setdefault((call_id, base), Tally())
        stopping.enter()
        try:
            await self._send_stop(call_id, base)
        finally:
            if stopping.count == 1:
                del self._stopping[call_id, base]
            stopping.leave()

    async def _send_stop(self, call_id: str, base: str) -> None:
        await deferLater(self.client.clock, 0)  # the end of a call is work enough for one turn
        try:
            answer = await self.client.request("POST", f"{base}/stop?id={quote(call_id)}")
        except BlameError as error:
            self._log.warn("{call_id} /stop failed: {error}", call_id=call_id, error=error)
            return
        if answer.status not in (200, 404):
            self._log.warn(
                "{call_id} /stop was answered with {status}",
                call_id=call_id,
                status=answer.status,
            )


class DialBackAttempt:
    """One `/run`, and one `/stop` after it."""

    def __init__(
        self, runner: DialBack, request: BotRequest, link: BotLink, address: RunnerAddress
    ) -> None:
        self._runner = runner
        self._request = request
        self._link = link
        self._address = address
        self._asked = ""  # the runner's URL, once /run has been sent to it
        self.unconnected = "the runner has not dialled back"

    async def ask(self) -> None:
        """Send `/run`, after which the bot dials back. Raises PeerError and BridgeError."""
        token = self._runner.dialback_server.expect(self._link)
        body = self._runner.body(self._request, token)
        where = body["ws_url"].removesuffix(f"/{self._request.call_id}/ws/{token}")
        self.unconnected = f"the runner has neither dialled back to {where} nor answered /run"
        redact = self._runner.client.redact.including(body).hiding(token)
        try:
            answer = await self._run(body, redact)
            answer.check()
            said = answer.json()
            if isinstance(said, dict) and said.get("status", "ok") != "ok":
                raise PeerError(f"answered with {answer.excerpt()}")
            self.unconnected = f"the runner has not dialled back to {where}"
        except BlameError as error:
            raise error.prefixed("/run: ") from None

    async def _run(self, body: dict[str, Any], redact: Redaction) -> Answer:
        """Send `/run`. If the embedded runner has just ended, send it again to the next one."""
        waits_for_answer = self.unconnected
        while True:
            base = await self._address.url()
            self.unconnected = "the runner has not answered /stop for the last bot of this UUID"
            await self._runner.stopped(self._link.call_id, base)
            self.unconnected = waits_for_answer
            self._asked = base
            try:
                return await self._runner.client.request("POST", f"{base}/run", body, None, redact)
            except BridgeError:
                self._asked = ""  # the request was not sent
                raise
            except PeerRefusedError:
                self._asked = ""
                if not self._address.refused(base):
                    raise

    def stop(self) -> Deferred[None]:
        """Stop the bot, if it was asked for. Fires when the runner has been told."""
        call_id = self._link.call_id
        self._runner.dialback_server.forget(self._link)
        asked, self._asked = self._asked, ""
        if not asked:
            return succeed(None)
        return Deferred.fromCoroutine(self._runner.send_stop(call_id, asked))
