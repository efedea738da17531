"""The entry point for twistd: `makeService` builds the daemon and starts nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from socket import gethostname
from typing import Any

from twisted.python.usage import Options as UsageOptions

from pipecat_bridge import __version__
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.server import AudioSocketServer
from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.net.daemon import Daemon
from pipecat_bridge.net.json_log import write_json
from pipecat_bridge.net.listener import Listener
from pipecat_bridge.net.process import set_up
from pipecat_bridge.options import Options as BridgeOptions
from pipecat_bridge.records import Records
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.start.embedded import missing_extra
from pipecat_bridge.store.engine import StoreError
from pipecat_bridge.workers.supervisor import Supervisor


class CommandLine(UsageOptions):
    """The command line of `twistd pipecat-bridge`."""

    optParameters = [  # noqa: RUF012 - Twisted reads it from the class
        ["config", "c", None, "configuration file (TOML)"],
    ]
    optFlags = [["check", None, "check the configuration and exit"]]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self["set"] = []

    def opt_set(self, text: str) -> None:
        """Set an option, section.key=value; overrides file and environment; may be repeated"""
        self["set"].append(text)

    opt_s = opt_set

    def opt_version(self) -> None:
        """Print the version of pipecat-bridge and exit"""
        print(f"pipecat-bridge {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        try:
            self["options"] = load_options(self["config"], os.environ, self["set"])
        except ConfigError as error:
            # Not a UsageError, which would print the whole help before the fault.
            sys.exit(str(error))
        if self["check"]:
            print(f"{self['config'] or 'configuration'}: good")
            sys.exit(0)


Options = CommandLine  # twistd looks for this name


def make_bridge(
    options: BridgeOptions, reactor: Any, now: Callable[[], float] = time.monotonic
) -> Bridge:
    """A bridge with the listeners of `options`. `now` is the monotonic clock, in seconds."""

    def phones(answer: AnswerCall, clock: FrameClock) -> AudioSocketServer:
        listen = partial(Listener, reactor, options.audiosocket.listen)
        return AudioSocketServer(reactor, options, answer, clock, now, listen)

    bots = partial(Listener, reactor, options.runner.listen)
    api = partial(Listener, reactor, options.api.listen)
    node = options.service.node or gethostname()
    records = partial(Records, reactor, options, os.environ, node)
    return Bridge(options, reactor, phones, bots, api, now=now, make_records=records)


def makeService(usage: CommandLine, reactor: Any = None) -> Daemon:
    """Build the daemon from its options. twistd calls this function."""
    if reactor is None:
        from twisted.internet import reactor as default_reactor

        reactor = default_reactor
    options: BridgeOptions = usage["options"]
    if MODES[options.runner.mode].supervised and (missing := missing_extra()):
        sys.exit(missing)
    set_up(reactor, options.service.poll_interval)
    several = options.service.workers > 1
    try:
        daemon = Supervisor(options, reactor) if several else make_bridge(options, reactor)
    except StoreError as error:
        sys.exit(str(error))
    command: Any = getattr(usage, "parent", None)  # the options of twistd or of twist
    daemon.in_background = not (command or {}).get("nodaemon", True)  # twist has no such option
    if options.service.log_format == "json":
        write_json(daemon, command)
    return daemon
