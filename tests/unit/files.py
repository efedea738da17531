"""Files of a test."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def scratch(test: SynchronousTestCase) -> Path:
    """A path for one file, gone after the test; `mktemp` would leave folders where pytest runs."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name) / "file"
