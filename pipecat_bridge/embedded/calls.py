"""The calls of the embedded runner, from `/run` until their pipelines have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger
from pipecat.frames.frames import ErrorFrame
from pipecat.workers.runner import WorkerRunner

from .pipeline import CallPipeline, build
from .spec import CallSpec, RefusedError

_GREET_ANYWAY_AFTER = 1.0  # seconds; a bridge without RTVI never says that it is ready
_STOP_DEADLINE = 5.0


class BotCall:
    """One running pipeline. The call is over when `task` is done."""

    def __init__(
        self, spec: CallSpec, pipeline: CallPipeline, ended: Callable[[str], None]
    ) -> None:
        self._id = spec.id
        self._pipeline = pipeline
        self._ended = ended
        self._greeted = False
        self._reason = ""
        self._listen()
        self.task = asyncio.create_task(self._run(), name=f"call {spec.id}")

    async def stop(self, reason: str) -> None:
        """Cancel the pipeline and wait for its end, at most `_STOP_DEADLINE` seconds."""
        await self._cancel(reason)
        await asyncio.wait([self.task], timeout=_STOP_DEADLINE)

    async def _run(self) -> None:
        with logger.contextualize(call=self._id):
            logger.info("started")
            greeting = asyncio.create_task(self._greet_anyway())
            try:
                runner = WorkerRunner(handle_sigint=False)
                await runner.add_workers(self._pipeline.worker)
                await runner.run()
            except Exception:  # noqa: BLE001  # a fault of one call must not end the others
                self._reason = "the pipeline has failed"
                logger.exception("the pipeline has failed")
            finally:
                greeting.cancel()
                self._ended(self._id)
                logger.info(f"ended: {self._reason or 'the bot has ended the call'}")

    def _listen(self) -> None:
        worker, transport = self._pipeline.worker, self._pipeline.transport

        async def ready(*_: object) -> None:
            await self._greet()

        async def disconnected(*_: object) -> None:
            await self._cancel("the bridge has closed the call")

        async def dial_failed(_: object, reason: str) -> None:
            logger.error(reason)
            await self._cancel("the bridge could not be reached")

        async def failed(_: object, error: ErrorFrame) -> None:
            if not getattr(error.processor, "is_usable", True):
                await self._cancel(f"{error.processor} has failed for good: {error.error}")

        worker.rtvi.add_event_handler("on_client_ready", ready)
        worker.add_event_handler("on_pipeline_error", failed)
        transport.add_event_handler("on_disconnected", disconnected)
        transport.add_event_handler("on_dial_failed", dial_failed)

    async def _greet_anyway(self) -> None:
        await asyncio.sleep(_GREET_ANYWAY_AFTER)
        await self._greet()

    async def _greet(self) -> None:
        if not self._greeted:
            self._greeted = True
            await self._pipeline.greet()

    async def _cancel(self, reason: str) -> None:
        self._reason = self._reason or reason
        await self._pipeline.worker.cancel(reason=reason)


class BotCalls:
    """The running calls, by id."""

    def __init__(self) -> None:
        self._calls: dict[str, BotCall] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, spec: CallSpec) -> None:
        """Start a call. A new task dials the bridge. Raises RefusedError."""
        if spec.id in self._calls:
            raise RefusedError(409, f'the call "{spec.id}" is already running; stop it first')
        self._calls[spec.id] = BotCall(spec, build(spec), self._forget)

    async def stop(self, call_id: str) -> bool:
        """End a call at once. False if there is no call with this id."""
        if (call := self._calls.get(call_id)) is None:
            return False
        await call.stop("stopped over HTTP")
        return True

    async def close(self) -> None:
        """End all calls."""
        calls = list(self._calls.values())
        await asyncio.gather(*(call.stop("the runner is shutting down") for call in calls))

    def _forget(self, call_id: str) -> None:
        del self._calls[call_id]
