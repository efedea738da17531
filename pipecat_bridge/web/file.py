"""Sends a file with ranges (RFC 9110, section 14). Threads read it: no call waits for a disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from pipecat_bridge.store.convert import TYPES
from pipecat_bridge.store.recordings import OpenFile
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.resource import Handler, JSONResource, Reply, write

InThread = Callable[..., Deferred[Any]]
"""Calls a function with arguments in a thread."""

CHUNK: Final = 1 << 16
"""Bytes that are read at once."""

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Span(NamedTuple):
    """Bytes of a file, from `start` up to but not including `end`."""

    start: int
    end: int


def span_of(value: str, size: int) -> Span | None:
    """The part of a file of `size` bytes for a Range header; all of it if there is none, or one
    that is not understood, as the RFC wants it. None: there is no such part."""
    found = _RANGE.fullmatch(value)
    if found is None or value == "bytes=-":
        return Span(0, size)
    first, last = found.groups()
    if not first:
        return Span(max(0, size - int(last)), size) if int(last) and size else None
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return Span(0, size)
    return Span(start, end) if start < size else None


def send_file(in_thread: InThread, request: Request, opened: OpenFile, range_header: str) -> None:
    """Answer a request with a file, or a part of it. It is closed when the client has it."""
    file, suffix, size = opened
    span = span_of(range_header, size)
    request.setHeader("accept-ranges", "bytes")
    if span is None:
        file.close()
        request.setResponseCode(416)
        request.setHeader("content-range", f"bytes */{size}")
        request.finish()
        return
    request.setHeader("content-type", TYPES[suffix])
    request.setHeader("content-length", str(span.end - span.start))
    if span != (0, size):
        request.setResponseCode(206)
        request.setHeader("content-range", f"bytes {span.start}-{span.end - 1}/{size}")
    if request.method == b"HEAD":
        file.close()
        request.finish()
        return
    file.seek(span.start)
    _Sender(in_thread, request, file, span.end - span.start).begin()


class Elsewhere(NamedTuple):
    """Something that is at another URL for now."""

    url: str


class FileResource(JSONResource):
    """Answers GET and HEAD with the file that `find` finds, or with a redirect to where it is, and
    other methods as usual."""

    def __init__(
        self,
        in_thread: InThread,
        find: Callable[[], Coroutine[Any, Any, OpenFile | Elsewhere]],
        **handlers: Handler,
    ) -> None:
        super().__init__(GET=_sent, **handlers)
        self._in_thread = in_thread
        self._find = find

    def render(self, request: Request) -> bytes | int:
        if request.method not in (b"GET", b"HEAD"):
            return super().render(request)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        finding = Deferred.fromCoroutine(self._find())

        def send(found: OpenFile | Elsewhere) -> None:
            if isinstance(found, Elsewhere):
                if not gone:
                    request.setResponseCode(307)
                    request.setHeader("location", found.url)
                    request.finish()
            elif gone:
                found.file.close()
            else:
                send_file(self._in_thread, request, found, header(request, "range") or "")

        def failed(failure: Failure) -> None:
            if not gone:
                request.write(write(request, *self.failed(failure)))
                request.finish()

        finding.addCallback(send).addErrback(failed)
        return NOT_DONE_YET


def _sent(request: Request) -> Reply:
    """GET is known to `allow`. `render` answers it."""
    raise AssertionError


@implementer(IPushProducer)
class _Sender:
    """Sends `left` bytes of a file, as fast as the client reads."""

    _log = Logger()

    def __init__(self, in_thread: InThread, request: Request, file: BinaryIO, left: int) -> None:
        self._in_thread = in_thread
        self._request = request
        self._file = file
        self._left = left
        self._reads = True
        self._reading: Deferred[Any] | None = None
        self._over = False

    def begin(self) -> None:
        """Send the first bytes."""
        self._request.registerProducer(self, True)
        self._request.notifyFinish().addBoth(lambda _: self.stopProducing())
        self._go_on()

    def _go_on(self) -> None:
        if self._over or not self._reads or self._reading is not None:
            return
        if not self._left:
            self._end()
            return
        self._reading = self._in_thread(self._file.read, min(CHUNK, self._left))
        self._reading.addCallbacks(self._send, self._failed)

    def _send(self, data: bytes) -> None:
        self._reading = None
        if self._over:
            self._file.close()
        elif not data:
            self._abort()  # the file is shorter than it was
        else:
            self._left -= len(data)
            self._request.write(data)
            self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._reading = None
        if not failure.check(CancelledError):
            self._log.failure("a recording cannot be read", failure)
        self._abort()

    def _abort(self) -> None:
        """The client must not take what it has for all."""
        self._over = True
        self._file.close()
        self._request.loseConnection()

    def _end(self) -> None:
        self._over = True
        self._file.close()
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        self._reads = False

    def resumeProducing(self) -> None:
        self._reads = True
        self._go_on()

    def stopProducing(self) -> None:
        if not self._over:
            self._over = True
            if self._reading is None:
                self._file.close()
