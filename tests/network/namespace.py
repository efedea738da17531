"""A machine of its own for the peers of a daemon, behind a link that can be narrow or down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert not done.returncode, f"{' '.join(words)}: {done.stderr}"


@contextmanager
def namespace(number: int) -> Iterator[Namespace]:
    """A namespace that is there for a while. `number` keeps several of them apart."""
    made = Namespace(number)
    try:
        made.set_up()
        yield made
    finally:
        made.take_down()


class Namespace:
    """A network namespace, with a pair of virtual cards between it and us.

    `ours` and `theirs` are the addresses of both ends.
    """

    def __init__(self, number: int) -> None:
        tag = f"{os.getpid()}-{number}"
        self._name = f"bridge-{tag}"
        self._card, self._far_card = f"br{tag}a", f"br{tag}b"
        net = f"10.{200 + number}.{os.getpid() % 256}"
        self.ours, self.theirs = f"{net}.1", f"{net}.2"

    def set_up(self) -> None:
        """Make the namespace, and the link to it."""
        _run("ip", "netns", "add", self._name)
        pair = ("type", "veth", "peer", "name", self._far_card, "netns", self._name)
        _run("ip", "link", "add", self._card, *pair)
        _run("ip", "address", "add", f"{self.ours}/30", "dev", self._card)
        self.up()
        for words in (
            ("ip", "address", "add", f"{self.theirs}/30", "dev", self._far_card),
            ("ip", "link", "set", self._far_card, "up"),
            ("ip", "link", "set", "lo", "up"),
        ):
            _run(*self.inside(words))

    def take_down(self) -> None:
        """Remove the namespace, if it was made, and the link with it."""
        subprocess.run(["ip", "netns", "delete", self._name], capture_output=True)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` in the namespace."""
        return ["ip", "netns", "exec", self._name, *command]

    def down(self) -> None:
        """Cut the link."""
        _run("ip", "link", "set", self._card, "down")

    def up(self) -> None:
        """Mend the link."""
        _run("ip", "link", "set", self._card, "up")

    def narrow(self, bits_per_second: int) -> None:
        """Limit what goes to the peers. A router's buffer of 0.4 s comes with it."""
        _run(
            *("tc", "qdisc", "add", "dev", self._card, "root", "tbf"),
            *("rate", f"{bits_per_second}bit", "burst", "4kb", "latency", "400ms"),
        )

    def widen(self) -> None:
        """Take the limit away."""
        _run("tc", "qdisc", "delete", "dev", self._card, "root")
