"""Fuzzes all targets, some of them, or gives one input to a target once more.

`python -m tests.fuzz [--seconds N] [TARGET ...]` runs each target in a process of its own, two at a
time. With `--unguided` the targets get mutations of what guided runs have found, without coverage
and some ten times as many. `python -m tests.fuzz TARGET --input FILE` gives a target the bytes of a
file.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tests.fuzz.harness import INSTRUMENTED, LONGEST_INPUT, MOST_CPU, check, faults
from tests.fuzz.mutations import mutations

TARGETS: Final = ("wire", "audiosocket", "websocket", "bot", "api")
HOME: Final = Path(".fuzz")
_BESIDE: Final = 2
_TIMEOUT: Final = 30
"""Seconds after which an input counts as one that does not end."""

_MEMORY_MB: Final = 1024

_COUNTED: Final = "number_of_executed_units"
"""What libFuzzer calls the number of inputs."""

_SHORT: Final = 1024
"""Bytes of the longest input that is changed at random. Longer ones take their time."""

_BETWEEN_LOOKS: Final = 1000
"""Inputs between two looks at the clock."""


def main() -> int:
    """The status: 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="a file with an input")
    parser.add_argument("--unguided", action="store_true", help="mutations of the corpus")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    for target in targets:
        if target not in TARGETS:
            parser.error(f"no target {target}: expected {', '.join(TARGETS)}")
    if options.child:
        run = _mutate if options.unguided else _fuzz
        run(targets[0], options.seconds)
        return 0
    if options.input:
        check(_target(targets[0]).one_input, options.input.read_bytes())
        return 0
    with ThreadPoolExecutor(_BESIDE) as pool:
        found = list(
            pool.map(lambda name: _supervise(name, options.seconds, options.unguided), targets)
        )
    return int(any(found))


def _target(name: str) -> Any:
    return importlib.import_module(f"tests.fuzz.{name}")


def _fuzz(name: str, seconds: int) -> None:
    """In this process. Never returns."""
    import atheris

    with atheris.instrument_imports(include=["pipecat_bridge"]):
        target = _target(name)
    corpus = HOME / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        check(target.one_input, data, INSTRUMENTED)

    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={_TIMEOUT}",
        f"-rss_limit_mb={_MEMORY_MB}",
        f"-artifact_prefix={_findings(name)}/",
        "-verbosity=0",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def _mutate(name: str, seconds: int) -> None:
    """In this process."""
    target = _target(name)
    found = [path.read_bytes() for path in sorted((HOME / "corpus" / name).glob("*"))]
    short = [data for data in (*target.SEEDS, *found) if len(data) <= _SHORT]
    mutation = mutations(short, int.from_bytes(os.urandom(8), "big"))
    end, count = time.monotonic() + seconds, 0
    with faults() as seen:
        while time.monotonic() < end:
            for _ in range(_BETWEEN_LOOKS):
                data = mutation()
                begun = time.process_time()
                try:
                    target.one_input(data)
                except Exception:  # noqa: BLE001 - whether it is a finding is seen below
                    seen.append("")
                if seen or time.process_time() - begun > MOST_CPU:
                    _keep_finding(name, data)
                    seen.clear()
            count += _BETWEEN_LOOKS
    print(f"{_COUNTED}: {count}")


def _keep_finding(name: str, data: bytes) -> None:
    """Give an input to the target once more. If it fails again, keep it, and raise."""
    try:
        check(_target(name).one_input, data)
    except Exception:
        (_findings(name) / f"unguided-{sha256(data).hexdigest()[:16]}").write_bytes(data)
        raise


def _findings(name: str) -> Path:
    folder = HOME / "findings" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _supervise(name: str, seconds: int, unguided: bool) -> bool:
    """Fuzz in another process. True if there is a finding."""
    folder = _findings(name)
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "tests.fuzz", name, "--child", "--seconds", str(seconds)]
    command += ["--unguided"] if unguided else []
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (HOME / f"{name}.log").write_text(ran.stdout)
    new = sorted(set(folder.iterdir()) - before)
    runs = [line.split()[-1] for line in ran.stdout.splitlines() if _COUNTED in line]
    print(f"{name}: {runs[0] if runs else 'unknown'} inputs in {seconds} s", flush=True)
    findings = [path for path in new if _confirmed(name, path)]
    if ran.returncode and not new:
        print(f"{name}: ended with {ran.returncode}, the end of {HOME}/{name}.log:")
        print(*ran.stdout.splitlines()[-20:], sep="\n", flush=True)
        return True
    return bool(findings)


def _confirmed(name: str, path: Path) -> bool:
    """Whether the input fails without atheris as well; what is slow may be slow by it alone."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--input", str(path)]
    try:
        again = subprocess.run(command, capture_output=True, text=True, timeout=2 * _TIMEOUT)
        failed, told = again.returncode, again.stderr
    except subprocess.TimeoutExpired:
        failed, told = 1, f"no end within {2 * _TIMEOUT} s"
    if failed:
        print(f"{name}: FINDING in {path}\n{told}", flush=True)
    else:
        print(f"{name}: {path} fails only under atheris", flush=True)
    return bool(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # noqa: BLE001 - a finding, with where it was found
        traceback.print_exc()
        sys.exit(1)
