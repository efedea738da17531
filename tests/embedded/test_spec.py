"""What the body of `/run` may contain."""

from __future__ import annotations

import pytest

from pipecat_bridge.embedded.spec import RefusedError, read_spec, with_query

URL = "ws://127.0.0.1:8001/c1/ws?token=a%26b"


def test_only_id_and_address_are_needed() -> None:
    spec = read_spec({"id": "c1", "ws_url": URL, "later_key": [1], "tts_type": None})
    assert (spec.id, spec.urls, spec.is_echo) == ("c1", (URL,), False)
    assert (spec.stt_type, spec.llm_type, spec.tts_type) == ("local", "local", "local")


def test_two_sockets_keep_the_query_that_the_address_has() -> None:
    spec = read_spec({"id": "c1", "ws_url": URL, "sockets": 2})
    assert spec.urls == (f"{URL}&direction=input", f"{URL}&direction=output")
    assert read_spec({"id": "c1", "ws_url": URL}, sockets=2).urls == spec.urls
    assert (
        with_query("ws://h/p?direction=x&a=", "direction", "input") == "ws://h/p?a=&direction=input"
    )


def test_the_echo_bot_has_two_names() -> None:
    for extra in ({"llm_type": "echo"}, {"bot": "echo"}):
        assert read_spec({"id": "c1", "ws_url": URL, **extra}).is_echo


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "the body is a list; expected an object with id and ws_url"),
        ({"ws_url": URL}, "id is missing"),
        ({"id": 7, "ws_url": URL}, "id is a number; expected a string"),
        ({"id": "c1"}, "ws_url is missing"),
        ({"id": "c1", "ws_url": "http://x/"}, 'ws_url is "http://x/"; expected a URL such as ws:'),
        ({"id": "c1", "ws_url": URL, "sockets": 3}, "sockets is 3; expected 1"),
        ({"id": "c1", "ws_url": URL, "metadata": "x"}, "metadata is a string"),
        ({"id": "c1", "ws_url": URL, "llm_messages": ["x"]}, "llm_messages is not a list"),
    ],
)
def test_a_bad_body_is_refused_with_its_reason(body: object, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_spec(body)
    assert refused.value.status == 400
    assert str(refused.value).startswith(sentence)
