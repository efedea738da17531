"""One PostgreSQL server for all tests here, and one store of recordings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.postgresql import PostgreSQL
from tests.store.swift import Swift


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that runs, and whose database is empty at first."""
    server = PostgreSQL()
    server.start()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """A store that runs, and whose bucket is empty at first."""
    store = Swift()
    store.start()
    try:
        yield store
    finally:
        store.remove()
