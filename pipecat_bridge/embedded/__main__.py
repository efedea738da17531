"""The embedded runner: starts a Pipecat bot for each call that the bridge asks for."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loguru import logger

if TYPE_CHECKING:
    from .calls import BotCalls

_STANDARD_INPUT = 0
_LEVELS = ("trace", "debug", "info", "warning", "error")
# Pipecat warns of a setting for cloud recognisers if the VAD has another setting.
_QUIETER: dict[str | None, str] = {
    "pipecat.turns.user_stop.speech_timeout_user_turn_stop_strategy": "ERROR"
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the parent process has ended with
    `--exit-with-parent`. Returns the exit status."""
    options = _options(arguments)
    if options.exit_with_parent:
        _ignore_signals()
    _log_to_stderr(options.log_level.upper())
    return asyncio.run(_serve(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipecat_bridge.embedded", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on; 0: any free port"
    )
    parser.add_argument(
        "--sockets", type=int, choices=(1, 2), default=1, help="WebSockets for each call"
    )
    parser.add_argument(
        "--log-level", choices=_LEVELS, default="info", help="level of the log on standard error"
    )
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="exit when standard input (a pipe) ends, and ignore signals",
    )
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> int:
    from .calls import BotCalls
    from .services import load_local

    load_local()
    calls = BotCalls()
    ended = asyncio.Event()
    try:
        if options.exit_with_parent:
            _end_with_parent(ended.set)
        else:
            _end_on_signals(ended.set)
        await _listen(options, calls, ended)
    except OSError as error:
        logger.error(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
        return 1
    return 0


async def _listen(options: argparse.Namespace, calls: BotCalls, ended: asyncio.Event) -> None:
    from aiohttp import web

    from .app import App

    application = App(calls, options.sockets).application()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        host, port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"listening on http://{shown}:{port}", flush=True)
        await ended.wait()
        await calls.close()
    finally:
        await runner.cleanup()


def _ignore_signals() -> None:
    """Ignore the signals of terminals and service managers. The parent gets them as well, and may
    still have calls that need this runner."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end_on_signals(end: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _end_with_parent(end: Callable[[], None]) -> None:
    """Call `end` when standard input ends: it is a pipe from the parent, and ends with it."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(_STANDARD_INPUT, 1024):
            loop.remove_reader(_STANDARD_INPUT)
            end()

    try:
        loop.add_reader(_STANDARD_INPUT, readable)
    except PermissionError:  # standard input is a file or /dev/null, which cannot be watched
        logger.error("--exit-with-parent needs a pipe as standard input")
        end()


def _log_to_stderr(level: str) -> None:
    """Log each event as one line with the call's id. Of Pipecat's own events log only warnings and
    errors."""
    logger.remove()
    logger.configure(extra={"call": "-"}, patcher=_one_line)
    pipecat = level if level in ("TRACE", "DEBUG") else "WARNING"
    logger.add(
        sys.stderr,
        level=level,
        format="{level: <7} call={extra[call]} {message}",
        filter={"": level, "pipecat": pipecat, **_QUIETER},
        backtrace=False,
    )


def _one_line(record: Any) -> None:
    record["message"] = record["message"].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
