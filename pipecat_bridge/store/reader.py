"""Reads the store in threads, for the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.enterprise.adbapi import ConnectionLost, ConnectionPool
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pipecat_bridge.store.engine import Engine, StoreError

T = TypeVar("T")


class AwayError(StoreError):
    """The database cannot be read now."""


class Reader:
    """Connections that read. Each method fires with AwayError if the database cannot be used."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool: ConnectionPool | None = None

    def start(self) -> None:
        """Open connections, from the first read on."""
        self._pool = self._engine.pool()

    def stop(self) -> None:
        """Close them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def read(self, query: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call a function of `tables` or `outbox` in a thread, with a cursor, the engine and
        `arguments`."""
        assert self._pool is not None
        reading: Deferred[T] = self._pool.runInteraction(query, self._engine, *arguments)
        reading.addErrback(self._away)
        return reading

    def _away(self, failure: Failure) -> Failure:
        error: Any = failure.value
        if isinstance(error, ConnectionLost) or self._engine.is_away(error):
            raise AwayError(f"the store cannot be read: {self._engine.told(error)}") from None
        return failure
