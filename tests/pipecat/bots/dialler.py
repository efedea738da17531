"""A runner that dials back, of Pipecat and FastAPI and nothing else: each `/run` is an echo.

The call's metadata say what keeps it: `slow` is "start", "setup" or "filter" (a service handles its
StartFrame, a service is set up, a noise filter loads its model), for `seconds`.
"""

import argparse
import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame, Frame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import (
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
)
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.client import WebsocketClientParams, WebsocketClientTransport
from pipecat.workers.runner import WorkerRunner
from stock import Echo, saw

app = FastAPI()
workers: dict[str, PipelineWorker] = {}
tasks: set[asyncio.Task[None]] = set()


class Service(FrameProcessor):
    def __init__(self, in_setup: float, in_start: float) -> None:
        super().__init__()
        self.in_setup = in_setup
        self.in_start = in_start

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        await asyncio.sleep(self.in_setup)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await asyncio.sleep(self.in_start)
            saw("StartFrame")
        await self.push_frame(frame, direction)


class Filter(BaseAudioFilter):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def start(self, sample_rate: int) -> None:
        await asyncio.sleep(self.seconds)

    async def stop(self) -> None:
        pass

    async def process_frame(self, frame: FilterControlFrame) -> None:
        pass

    async def filter(self, audio: bytes) -> bytes:
        return audio


@app.post("/run")
async def run(body: dict[str, Any]) -> dict[str, str]:
    slow, seconds = body["metadata"].get("slow"), float(body["metadata"].get("seconds", 0))
    params = WebsocketClientParams(audio_in_enabled=True, audio_out_enabled=True)
    params.serializer = ProtobufFrameSerializer()
    if slow == "filter":
        params.audio_in_filter = Filter(seconds)
    transport = WebsocketClientTransport(body["ws_url"], params)
    service = Service(seconds * (slow == "setup"), seconds * (slow == "start"))
    parts = [transport.input(), service, Echo(None), transport.output()]
    worker = workers[body["id"]] = PipelineWorker(Pipeline(parts))

    @transport.event_handler("on_disconnected")
    async def on_disconnected(transport: object, socket: object) -> None:
        await worker.cancel()

    task = asyncio.create_task(serve(body["id"], worker))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return {"status": "ok", "id": body["id"]}


async def serve(call_id: str, worker: PipelineWorker) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    del workers[call_id]
    saw("over", call_id)


@app.post("/stop")
async def stop(request: Request) -> dict[str, str]:
    worker = workers.get(request.query_params["id"])
    if worker is None:
        raise HTTPException(404)
    await worker.cancel()
    return {"status": "ok"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port)
