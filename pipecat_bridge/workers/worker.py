"""One worker in the supervisor: its process, and the commands to it."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from pipecat_bridge.net.supervised import Supervised
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.heartbeat import INTERVAL, MISSED, Heartbeat
from pipecat_bridge.workers.lines import relay
from pipecat_bridge.workers.setup import Setup

COMMAND: Final = [sys.executable, "-m", "pipecat_bridge.workers"]


class WorkerTimes(NamedTuple):
    """Times in seconds, see `pipecat_bridge.net.supervised`. `stop_timeout` is for calls too."""

    start_timeout: float = 60.0
    stop_timeout: float = 5.0
    restart_delay: float = 0.5
    max_restart_delay: float = 30.0


class WorkerListener(Protocol):
    """Is told about a worker and its calls."""

    def worker_ready(self, worker: Worker) -> None:
        """The worker takes calls."""

    def worker_lost(self, worker: Worker) -> None:
        """The worker takes no calls any more, and its calls have ended."""

    def call_ended(self, phone: int) -> None:
        """The call of the phone with this number is over."""


class Worker:
    """Worker `number`. While `ready` is True, it takes phones and requests to its API.

    `bots`: the file descriptor of the socket that listens for its bots, or None.
    """

    _log = Logger(namespace="pipecat_bridge.workers")

    def __init__(
        self,
        reactor: Any,
        setup: Setup,
        bots: int | None,
        listener: WorkerListener,
        times: WorkerTimes | None = None,
    ) -> None:
        self.number = setup.number
        self.ready = False
        self._reactor = reactor
        self._setup = msgspec.json.encode(setup)
        self._bots = bots
        self._listener = listener
        self._control: SupervisorControl | None = None
        self._heartbeat = Heartbeat(reactor, self._ping, self._silent)
        self._process = Supervised(
            reactor, f"worker {self.number}", self, times or WorkerTimes(), self._log
        )

    @property
    def restarts(self) -> int:
        """How often the process was started again."""
        return self._process.restarts

    def start(self) -> None:
        """Start the process. It is started again whenever it ends."""
        self._process.start()

    def stop(self) -> Deferred[None]:
        """End the worker and its calls. Fires when the process has ended."""
        return self._process.stop(self._end)

    def _end(self) -> None:
        if self.ready:
            self.tell(commands.End)
        else:
            self._process.kill()  # it has no calls yet

    # Commands

    def take_phone(
        self, sock: socket.socket, phone: int, data: bytes, elsewhere: int
    ) -> Deferred[bool]:
        """Give the worker a phone. Fires with True if it answers; fails if the worker is lost."""
        asking = self._call(
            commands.TakePhone,
            descriptor=sock.fileno(),
            phone=phone,
            data=data,
            elsewhere=elsewhere,
        )
        return asking.addCallback(lambda answer: bool(answer["answered"]))

    def serve_api(self, sock: socket.socket) -> Deferred[Any]:
        """Give the worker a connection to its API. Fires when `sock` may be closed here."""
        return self._call(commands.ServeApi, descriptor=sock.fileno())

    def tell(self, command: type[amp.Command], **arguments: Any) -> None:
        """Send a command that has no answer."""
        if self.ready:
            self._call(command, **arguments)

    def _ping(self) -> Deferred[Any]:
        return self._call(commands.Ping)

    def _call(self, command: type[amp.Command], **arguments: Any) -> Deferred[Any]:
        assert self._control is not None
        # A command without an answer returns no Deferred.
        return maybeDeferred(self._control.callRemote, command, **arguments)

    # From its process

    def spawn(self, process: IProcessProtocol) -> None:
        """Start the process once, with its end of a pair of sockets, and its setup on standard
        input."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
            descriptors[commands.CONTROL_FD] = theirs.fileno()
            if self._bots is not None:
                descriptors[commands.BOTS_FD] = self._bots
            transport = self._reactor.spawnProcess(
                process, COMMAND[0], COMMAND, env=None, childFDs=descriptors
            )
            transport.write(self._setup)
            transport.closeStdin()
            control = self._control = SupervisorControl(self)
            factory = ServerFactory.forProtocol(lambda: control)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)

    def take(self, child_fd: int, line: bytes) -> None:
        """Log a line that the process has written."""
        relay(self.number, line)

    def ended(self) -> None:
        """The process has ended."""
        self._lost()

    # From its control

    def became_ready(self) -> None:
        """The worker takes calls."""
        self.ready = True
        self._process.listens()
        self._log.info("worker {number} is ready, process {pid}", number=self.number, pid=self.pid)
        self._heartbeat.start()
        self._listener.worker_ready(self)

    def call_ended(self, phone: int) -> None:
        """The call of the phone with this number is over."""
        self._listener.call_ended(phone)

    def _silent(self) -> None:
        """Kill the process: it stands still. SIGKILL also ends a process that is stopped."""
        self._log.error(
            "worker {number}, process {pid}, has not answered for {seconds:g} s and is killed",
            number=self.number,
            pid=self.pid,
            seconds=INTERVAL * MISSED,
        )
        self._process.kill()
        if self._control is not None:
            self._control.abort()  # now, so that the phones that it has not taken hang up

    def control_lost(self, control: SupervisorControl) -> None:
        """The connection for commands is closed, so the worker should end by itself."""
        if control is self._control:
            self._process.expect_exit()
            self._lost()

    def _lost(self) -> None:
        self._control = None
        self._heartbeat.stop()
        if self.ready:
            self.ready = False
            self._listener.worker_lost(self)

    @property
    def pid(self) -> int | None:
        """The process id; None if the process does not run."""
        return self._process.pid


class SupervisorControl(commands.Control):
    """The supervisor's end of the pair of sockets."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    @commands.Ready.responder
    def _ready(self) -> dict[str, Any]:
        self._worker.became_ready()
        return {}

    @commands.CallEnded.responder
    def _call_ended(self, phone: int) -> dict[str, Any]:
        self._worker.call_ended(phone)
        return {}

    def abort(self) -> None:
        """Close the connection. Commands without an answer fail."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._worker.control_lost(self)
