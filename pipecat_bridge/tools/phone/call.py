"""``pipecat-bridge call``: places one call, with a WAV file as the caller, and waits for a bot."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import react

from pipecat_bridge.tools.phone.measure import own_lateness, pace_of
from pipecat_bridge.tools.phone.microphone import Microphone
from pipecat_bridge.tools.phone.recording import Recording
from pipecat_bridge.tools.phone.softphone import Ending, How, SoftPhone
from pipecat_bridge.tools.phone.speech import spans
from pipecat_bridge.tools.phone.wav import WavError, at_rate, read_wav, write_wav

CONNECT_SECONDS: Final = 5.0
# How long the caller listens after the last sample of the WAV file.
LINGER_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 15.0
"""Length of a call without a WAV file. It is more than a bridge waits for a bot ([runner]
connect_timeout)."""


class PlacedCall(NamedTuple):
    """The call to place. `wav`: the caller's sound. `out`: the file for the recording. `seconds`:
    the length of the call; None: until `LINGER_SECONDS` after the WAV file."""

    host: str
    port: int
    call_id: UUID
    rate: int
    wav: Path | None = None
    out: Path | None = None
    seconds: float | None = None


class CallError(Exception):
    """No bot was heard, or the call failed. The text is one sentence that says why."""


async def dial(reactor: Any, host: str, port: int, phone: SoftPhone) -> Ending:
    """Connect `phone`, and wait for the end of the call. Raises `CallError` without a connection.

    If the reactor is stopped, for example by Ctrl-C, the phone hangs up.
    """
    reactor.addSystemEventTrigger("before", "shutdown", phone.hang_up)
    try:
        endpoint = HostnameEndpoint(reactor, host, port, timeout=CONNECT_SECONDS)
        await connectProtocol(endpoint, phone)
    except error.ConnectionRefusedError:
        text = f"no call: nothing listens on {host}:{port} (connection refused)"
        raise CallError(text) from None
    except error.DNSLookupError:
        raise CallError(f"no call: there is no host with the name {host!r}") from None
    except (error.ConnectError, error.TimeoutError) as problem:
        raise CallError(f"no call: {host}:{port} cannot be reached: {problem}") from None
    return await phone.finished


async def place_call(reactor: Any, options: PlacedCall) -> str:
    """Place the call and write the recording. Returns one sentence about the call.

    Raises `CallError` if the bot was not heard; and before the call if a file cannot be used.
    """
    microphone, seconds = _prepared(options)
    recording = Recording(options.rate)
    phone = SoftPhone(
        options.call_id,
        microphone,
        recording,
        reactor,
        time.monotonic,
        on_tick=lambda at: phone.hang_up() if at >= seconds else None,
    )
    ending = await dial(reactor, options.host, options.port, phone)
    return _outcome(options, recording, ending)


def run(options: PlacedCall) -> int:
    """Run the reactor and place the call. Returns the exit status."""
    return run_under_reactor(lambda reactor: place_call(reactor, options))


def run_under_reactor(task: Callable[[Any], Any]) -> int:
    """Run a coroutine function and print the sentence that it returns. Returns the exit status.

    The status is 130 if the reactor was stopped before the function was done. It is 1 if the
    function raised `CallError`. The sentence of a `CallError` always goes to standard error.
    """
    status = 130

    async def main(reactor: Any) -> None:
        nonlocal status
        running = True
        stopped = False

        def stopping() -> None:
            nonlocal stopped
            stopped = running

        reactor.addSystemEventTrigger("before", "shutdown", stopping)
        try:
            print(await task(reactor), flush=True)
            status = 130 if stopped else 0
        except CallError as problem:
            print(problem, file=sys.stderr)
            status = 130 if stopped else 1
        running = False

    def start(reactor: Any) -> Deferred[None]:
        return ensureDeferred(main(reactor))

    try:
        react(start)
    except SystemExit as end:
        return status or int(end.code or 0)


def _prepared(options: PlacedCall) -> tuple[Microphone, float]:
    """The microphone with the WAV file, and the length of the call in seconds.

    Raises `CallError` if the WAV file or the file for the recording cannot be used.
    """
    if options.out is not None:
        try:
            _check_writable(options.out)
        except OSError as problem:
            raise CallError(f"no call: {_not_written(options.out, problem)}") from problem
    microphone = Microphone()
    seconds = SILENT_SECONDS
    if options.wav is not None:
        try:
            samples, rate = read_wav(options.wav)
            samples = at_rate(samples, rate, options.rate)
        except (WavError, ValueError) as problem:
            raise CallError(f"no call: {problem}") from problem
        microphone.say(samples)
        seconds = samples.size / options.rate + LINGER_SECONDS
    return microphone, seconds if options.seconds is None else options.seconds


def _check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be written. The file is not changed."""
    new = not path.exists()
    with path.open("ab"):
        pass
    if new:
        path.unlink()


def _not_written(path: Path, problem: OSError) -> str:
    return f"the recording cannot be written to {path}: {problem.strerror}"


def _outcome(options: PlacedCall, recording: Recording, ending: Ending) -> str:
    timeline = recording.timeline()
    if options.out is not None:
        try:
            write_wav(options.out, [timeline.caller, timeline.bot], options.rate)
        except OSError as problem:
            raise CallError(_not_written(options.out, problem)) from problem
    spoken = sum(one.seconds for one in spans(timeline.bot, timeline.rate))
    if fault := _fault(ending, "only silence" if recording.chunks else "no audio", bool(spoken)):
        raise CallError(f"call {options.call_id}: {fault}")
    pace = pace_of(recording, timeline)
    kept = f"; the recording is in {options.out}" if options.out else ""
    return (
        f"The call went through: {ending.at:.1f} s, {spoken:.1f} s of sound heard, "
        f"{pace.messages} messages, {pace.missing} missing, "
        f"at most {pace.latest * 1000:.1f} ms late "
        f"(the phone itself {own_lateness(recording) * 1000:.1f} ms), {ending.how.value}{kept}."
    )


def _fault(ending: Ending, quiet: str, heard: bool) -> str:
    """The fault of a call; "" if a bot was heard. `quiet`: what came instead of a bot."""
    if ending.how is How.FAULT:
        return f"the phone ended it after {ending.at:.1f} s, as Asterisk would: {ending.detail}"
    if heard:
        lost = f"the connection was lost after {ending.at:.1f} s: {ending.detail}"
        return lost if ending.how is How.LOST else ""
    if ending.how is How.WE_HUNG_UP:
        return f"the bot was not heard: {quiet} came back in {ending.at:.1f} s"
    where = "see the bridge's log, or GET /v1/calls/ with the UUID of the call"
    return f"{ending.how.value} after {ending.at:.1f} s, before any sound: {where}"
