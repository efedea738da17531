"""A bot that fails in the way that its URL names: `?fault=raise` (and without), `end`, `fatal`,
`later`: when the text `fail` comes.
"""

from pipecat.frames.frames import EndFrame, Frame, LLMMessagesAppendFrame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.run import main
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.workers.runner import WorkerRunner
from stock import connect, saw, tone


class Fault(FrameProcessor):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            if self.kind == "end":
                await self.pipeline_worker.queue_frame(EndFrame())
            elif self.kind == "fatal":
                await self.push_error("no API key", fatal=True)
            elif self.kind == "later":
                await self.push_frame(tone(880, 0.6))
        elif isinstance(frame, LLMMessagesAppendFrame):
            await self.push_error("no API key", fatal=True)


async def bot(runner_args: WebSocketRunnerArguments) -> None:
    fault = runner_args.websocket.query_params.get("fault", "raise")
    saw("asked", fault)
    if fault == "raise":
        raise RuntimeError("no API key")
    transport, _ = await connect(runner_args)
    worker = PipelineWorker(Pipeline([transport.input(), Fault(fault), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    main()
