"""How long the API waits for the store: pages and searches among many calls, in each engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.record import (
    AnswerTimes,
    BotRecord,
    Delay,
    Quality,
    Record,
    Talk,
    TranscriptPart,
)
from pipecat_bridge.store import tables
from pipecat_bridge.store.engine import Engine, postgresql, sqlite
from pipecat_bridge.store.schema import migrate
from pipecat_bridge.store.scribe import call_entry
from pipecat_bridge.store.tables import Wanted
from pipecat_bridge.tools.load.figures import spread
from tests.store.postgresql import PostgreSQL, is_installed

BATCH = 1000
EPOCH = 1_700_000_000.0
APART = 30.0
"""Seconds from one call to the next."""

Result = dict[str, Any]


def run(calls: int, queries: int, folder: Path, tell: Callable[[str], None]) -> Result:
    """Fill a store of each engine with calls, and ask it as the API does."""
    results: Result = {"calls": calls, "engines": {}}
    engines: list[tuple[str, Any]] = [("SQLite", _sqlite(folder))]
    if is_installed():
        engines.append(("PostgreSQL", _postgresql()))
    for name, opened in engines:
        with opened as engine:
            tell(f"{name}: {calls} calls")
            results["engines"][name] = _measure(engine, calls, queries)
    return results


@contextmanager
def _sqlite(folder: Path) -> Iterator[Engine]:
    yield sqlite(folder / "records.sqlite3")


@contextmanager
def _postgresql() -> Iterator[Engine]:
    server = PostgreSQL()
    server.start()
    try:
        yield postgresql(server.url)
    finally:
        server.remove()


def _measure(engine: Engine, calls: int, queries: int) -> Result:
    connection = engine.connect()
    try:
        migrate(connection, engine)
        cursor = connection.cursor()
        began = time.perf_counter()
        for number in range(calls):
            tables.put_call(cursor, engine, "benchmark", call_entry(*_call(number)))
            if number % BATCH == BATCH - 1:
                connection.commit()
        connection.commit()
        filling = time.perf_counter() - began
        chance = random.Random(1)
        return {
            "calls_per_second": round(calls / filling),
            "page": _times(cursor, engine, queries, lambda: Wanted()),
            "page in the middle": _times(
                cursor,
                engine,
                queries,
                lambda: Wanted(after=(EPOCH + APART * chance.randrange(calls), 0)),
            ),
            "by caller": _times(
                cursor, engine, queries, lambda: Wanted(caller=_caller(chance.randrange(calls)))
            ),
            "by outcome": _times(cursor, engine, queries, lambda: Wanted(outcome="bot-hangup")),
            "what was said": _times(
                cursor,
                engine,
                max(1, queries // 20),
                lambda: Wanted(text=f"order {chance.random()}"),
            ),
        }
    finally:
        connection.close()


def _times(cursor: Any, engine: Engine, count: int, wanted: Callable[[], Wanted]) -> Any:
    """Milliseconds of each query, with the records made of its rows."""
    times = []
    decode = msgspec.json.Decoder(Record).decode
    for _ in range(count):
        asked = wanted()
        began = time.perf_counter()
        for row in tables.page(cursor, engine, asked):
            decode(row.record)
        times.append(time.perf_counter() - began)
    return spread(times)


def _caller(number: int) -> str:
    return f"+4930{number % 9973:07}"


def _call(number: int) -> tuple[Record, list[Turn]]:
    created = EPOCH + APART * number
    runner = f"http://10.0.0.{number % 4}:8000"
    delay = Delay(mean=12.5, p95=40.0, max=63.0)
    counters = dict.fromkeys(Quality.__struct_fields__, 1234)
    counters.update(caller_delay_ms=delay, bot_delay_ms=delay)
    del counters["one_way"]
    record = Record(
        version=1,
        id=f"{number:08x}-3f0e-4f3a-9d5e-2b8f0a1c4d7e",
        node="pbx-1",
        direction="in",
        state="ended",
        created_at=created,
        answered_at=created,
        ready_at=created + 0.4,
        ended_at=created + 61.0,
        duration=61.0,
        caller=_caller(number),
        called="600",
        peer="127.0.0.1:44110",
        metadata={"caller": _caller(number), "called": "600", "channel": "PJSIP/trunk-00000012"},
        runner=runner,
        bots=(
            BotRecord(
                runner=runner,
                asked_at=created,
                ready_at=created + 0.4,
                ready_by="bot-ready",
                ended_at=created + 61.0,
            ),
        ),
        outcome="bot-hangup" if number % 50 == 0 else "caller-hangup",
        reason="the caller hung up",
        ended_by="caller",
        variables={"TOPIC": "billing"},
        errors={},
        warnings={},
        phone_codec="linear",
        phone_rate=8000,
        bot_rate=24000,
        quality=Quality(**counters),
        talk=Talk(
            caller_talk=20.0,
            bot_talk=30.0,
            caller_utterances=9,
            bot_utterances=10,
            interruptions=1,
            turns=19,
            first_answer=0.8,
            answers=AnswerTimes(count=9, p50=0.9, p95=1.4, max=1.9),
            longest_silence=1.9,
        ),
        transcript=TranscriptPart(turns=19),
    )
    words = f"I am calling about order {number}, which has not come yet, and I would like to know"
    turns = [
        Turn("caller" if at % 2 else "bot", f"{words} {at}", created + 3 * at, created + 3 * at + 2)
        for at in range(19)
    ]
    return record, turns


def table(results: Result) -> str:
    """The figures in Markdown."""
    engines = results["engines"]
    names = list(engines)
    lines = [
        f"| {results['calls']} calls; ms: p50 / p99 | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    rows = [row for row in next(iter(engines.values())) if row != "calls_per_second"]
    for row in rows:
        cells = [f"{engines[n][row]['p50']:.1f} / {engines[n][row]['p99']:.1f}" for n in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    cells = [f"{engines[n]['calls_per_second']}" for n in names]
    lines.append("| calls written in a second | " + " | ".join(cells) + " |")
    return "\n".join(lines)
