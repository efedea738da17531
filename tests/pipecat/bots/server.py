"""An echo with a WebSocket server of its own, which has room for one client."""

import argparse
import asyncio

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.server import WebsocketServerParams, WebsocketServerTransport
from pipecat.workers.runner import WorkerRunner
from stock import Echo, saw


async def serve(host: str, port: int) -> None:
    params = WebsocketServerParams(audio_in_enabled=True, audio_out_enabled=True)
    params.serializer = ProtobufFrameSerializer()
    transport = WebsocketServerTransport(params, host=host, port=port)
    worker = PipelineWorker(Pipeline([transport.input(), Echo(None), transport.output()]))

    @transport.event_handler("on_websocket_ready")
    async def on_websocket_ready(transport: object) -> None:
        saw("listening")

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    while True:  # RTVI's disconnect-bot ends the pipeline and the server
        await serve(options.host, options.port)


if __name__ == "__main__":
    asyncio.run(main())
