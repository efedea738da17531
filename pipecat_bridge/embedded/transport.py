"""Pipecat's WebSocket client transport, with additions for a dial-back runner.

- One socket for both directions, or one for each direction.
- No frame is taken before the pipeline has started: the original loses its session then.
- An event tells that dialling failed.
- The bridge is told about an interruption, and gets no old audio after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
    StartFrame,
    TextFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.websocket.client import (
    WebsocketClientCallbacks,
    WebsocketClientInputTransport,
    WebsocketClientOutputTransport,
    WebsocketClientParams,
    WebsocketClientSession,
    WebsocketClientTransport,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

FLUSH_MEDIA = "FLUSH_MEDIA"
_OPEN_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 2.0
_BOT_INTERRUPTED = {"label": "rtvi-ai", "type": "bot-interrupted"}


class DialError(Exception):
    """The bridge could not be reached at its URL."""


class CallSession(WebsocketClientSession):
    """The connection of a call: one socket, or an input and an output socket.

    Input and output transport both connect the session, and both disconnect it. The first one
    dials, and the last one closes the sockets. So the bot's last words are still sent after the
    input has stopped.
    """

    def __init__(
        self,
        urls: Sequence[str],
        params: WebsocketClientParams,
        callbacks: WebsocketClientCallbacks,
        transport_name: str,
        failed: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(urls[-1], params, callbacks, transport_name)
        self._urls = urls
        self._failed = failed
        self._owners = 0
        self._dialling = asyncio.Lock()
        self._sockets: list[ClientConnection] = []
        self._readers: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """Dial, unless the other transport has dialled. A failure is reported and ends the call."""
        async with self._dialling:
            self._owners += 1
            if self._owners > 1:
                return
            try:
                self._sockets = [await _dial(url) for url in self._urls]
            except DialError as error:
                await self._failed(str(error))
                return
            self._websocket = self._sockets[-1]  # the original class sends on it
            self._readers = [
                self.task_manager.create_task(self._read(socket), f"{self}::read")
                for socket in self._sockets
            ]
            await self._callbacks.on_connected(self._websocket)

    async def disconnect(self) -> None:
        """Release the sockets. The last transport that does so closes them."""
        self._owners = max(self._owners - 1, 0)
        if self._owners or not self._sockets:
            return
        sockets, self._sockets = self._sockets, []
        for reader in self._readers:
            await self.task_manager.cancel_task(reader)
        await asyncio.gather(*(socket.close() for socket in sockets))
        self._websocket = None

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for message in socket:
                await self._callbacks.on_message(socket, message)
        except WebSocketException:
            pass  # the reason does not matter: on_disconnected reports the end
        await self._callbacks.on_disconnected(socket)


async def _dial(url: str) -> ClientConnection:
    try:
        return await connect(
            url,
            compression=None,  # compression gains nothing for audio, and costs 300 kB for each call
            proxy=None,  # a proxy in the environment is for cloud services, not for the bridge
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
        )
    except (OSError, WebSocketException, TimeoutError) as error:
        raise DialError(f"cannot dial {url.partition('?')[0]}: {error}") from error


class CallInput(WebsocketClientInputTransport):
    """Takes frames from the bridge, after the StartFrame has passed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._started = asyncio.Event()

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        self._started.set()

    async def on_message(self, websocket: ClientConnection, message: str | bytes) -> None:
        await self._started.wait()
        await super().on_message(websocket, message)  # type: ignore[no-untyped-call]  # Pipecat's


class CallOutput(WebsocketClientOutputTransport):
    """Sends frames to the bridge, and tells the bridge at once about an interruption.

    The signal is sent here, after the queue has been emptied, and not where the interruption
    began. So all audio before the signal is old, and all audio after it is new. The audio task may
    have taken a chunk from the queue before. Such a chunk has a lower frame id than the signal,
    because ids only grow, and is dropped.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._newest_stale_id = -1

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await self._tell_of_interruption()

    async def _tell_of_interruption(self) -> None:
        signal = TextFrame(FLUSH_MEDIA)
        self._newest_stale_id = signal.id
        await self._write_frame(signal)
        await self._write_frame(OutputTransportMessageUrgentFrame(message=_BOT_INTERRUPTED))

    async def send_message(
        self, frame: OutputTransportMessageFrame | OutputTransportMessageUrgentFrame
    ) -> None:
        # Drop Pipecat's own message: it passes other queues than the audio, and ours was sent.
        if frame.message.get("type") != _BOT_INTERRUPTED["type"]:
            await super().send_message(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        if frame.id < self._newest_stale_id and getattr(frame, "interruptible", True):
            return False
        return bool(await super().write_audio_frame(frame))


class EchoOutput(CallOutput):
    """Sends each audio frame at once and unchanged, without pacing."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, OutputAudioRawFrame):
            await self._write_frame(frame)
        else:
            await super().process_frame(frame, direction)


class CallTransport(WebsocketClientTransport):
    """Input and output of a call. Events: on_connected, on_disconnected, on_dial_failed(reason)."""

    def __init__(
        self, urls: Sequence[str], params: WebsocketClientParams, output: type[CallOutput]
    ) -> None:
        super().__init__(urls[-1], params)
        self._output_class = output
        self._register_event_handler("on_dial_failed")
        callbacks = WebsocketClientCallbacks(
            on_connected=self._on_connected,
            on_disconnected=self._on_disconnected,
            on_message=self._on_message,
        )
        self._session = CallSession(urls, self._params, callbacks, self.name, self._on_dial_failed)

    def input(self) -> CallInput:
        if not isinstance(self._input, CallInput):
            self._input = CallInput(self, self._session, self._params)
        return self._input

    def output(self) -> CallOutput:
        if not isinstance(self._output, CallOutput):
            self._output = self._output_class(self, self._session, self._params)
        return self._output

    async def _on_dial_failed(self, reason: str) -> None:
        await self._call_event_handler("on_dial_failed", reason)
