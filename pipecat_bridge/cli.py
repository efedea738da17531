"""Commands to try, measure and check a bridge. The daemon itself is ``twistd pipecat-bridge``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

from pipecat_bridge import __version__
from pipecat_bridge.wire.audiosocket import AUDIO_KINDS

DEFAULT_ADDRESS = ("127.0.0.1", 9092)


CALL_STATUSES = """\
exit status: 0 when the bot was heard; 1 when the bot was not heard, when the call was refused or
broke, or when a file cannot be used; 2 for wrong arguments; 130 when interrupted. Files are checked
before the call. A bot is heard if its sound is above -42 dB, the level of speech, for 50 ms."""


class Subcommand(NamedTuple):
    """A subcommand: its name, its help, its arguments, and the function that runs it.

    `run` takes the parsed arguments and returns the exit status. It imports what it needs, so that
    other subcommands start fast.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that `arguments` name; return the exit status."""
    parser = argparse.ArgumentParser(prog="pipecat-bridge", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pipecat-bridge {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    chosen = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = chosen.run
    return run(chosen)


def _call_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = CALL_STATUSES
    parser.add_argument(
        "address",
        nargs="?",
        type=_address,
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="address of the AudioSocket server (default: 127.0.0.1:9092)",
    )
    parser.add_argument("--uuid", type=UUID, help="UUID of the call (default: a new one)")
    parser.add_argument("--wav", type=Path, help="what the caller says: a PCM WAV file of any rate")
    parser.add_argument("--out", type=Path, help="stereo WAV file to write: caller left, bot right")
    parser.add_argument(
        "--rate",
        type=int,
        default=8000,
        choices=sorted(AUDIO_KINDS),
        help="samples per second on the line (default: 8000)",
    )
    parser.add_argument(
        "--duration",
        type=_seconds,
        metavar="SECONDS",
        help="hang up after this time (default: 5 s after the end of the WAV file, "
        "or 15 s without a WAV file)",
    )


def _call(arguments: argparse.Namespace) -> int:
    from pipecat_bridge.tools.phone.call import PlacedCall, run

    host, port = arguments.address
    options = PlacedCall(
        host,
        port,
        arguments.uuid or uuid4(),
        arguments.rate,
        arguments.wav,
        arguments.out,
        arguments.duration,
    )
    return run(options)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="FOLDER",
        help="folder for the recording, the picture and the figures (default: ./demo)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        default=8000,
        choices=[8000, 16000],
        help="samples per second on the line (default: 8000)",
    )
    parser.add_argument("--script", type=Path, help="script of the call (default: a packaged one)")


def _demo(arguments: argparse.Namespace) -> int:
    from pipecat_bridge.tools.phone.demo import run

    return run(arguments.out, arguments.rate, arguments.script)


def _load_arguments(parser: argparse.ArgumentParser) -> None:
    from pipecat_bridge.tools.load.command import add_arguments

    add_arguments(parser, _address)


def _load(arguments: argparse.Namespace) -> int:
    from pipecat_bridge.tools.load.command import main as run

    return run(arguments)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="configuration file")


def _check(arguments: argparse.Namespace) -> int:
    from pipecat_bridge.config.load import ConfigError, load_options

    try:
        load_options(arguments.config, os.environ)
    except ConfigError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{arguments.config} is good")
    return 0


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


def _version(_: argparse.Namespace) -> int:
    print(__version__)
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    good = colon and host and "/" not in host and port.isdigit() and 0 < int(port) < 65536
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address, expected HOST:PORT")
    return host.strip("[]"), int(port)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration, expected seconds above 0")
    return seconds


COMMANDS = (
    Subcommand("call", "place one call to a bridge, without a phone", _call_arguments, _call),
    Subcommand("demo", "start a bridge and carry one spoken call", _demo_arguments, _demo),
    Subcommand("load", "place many calls at once and measure the bridge", _load_arguments, _load),
    Subcommand("check", "check a configuration file and the environment", _check_arguments, _check),
    Subcommand("version", "print the version", _no_arguments, _version),
)


if __name__ == "__main__":
    sys.exit(main())
