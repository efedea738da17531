"""Which service a call gets, and the error if the service is not available."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pipecat.processors.frame_processor import FrameProcessor

from pipecat_bridge.embedded import services
from pipecat_bridge.embedded.spec import CallSpec, RefusedError, read_spec

pytestmark = pytest.mark.pipecat
KEYS = ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "CARTESIA_API_KEY", "ELEVENLABS_API_KEY")


def _spec(**parameters: str) -> CallSpec:
    return CallSpec(id="c1", ws_url="ws://127.0.0.1:1/", **parameters)  # type: ignore[arg-type]


async def _never() -> None:
    raise AssertionError("nobody hangs up")


def _model(spec: CallSpec) -> FrameProcessor:
    return services.language_model(spec, _never)


def _made(make: Callable[[CallSpec], FrameProcessor], spec: CallSpec) -> str:
    """The name of the service's class, made where a loop runs, as the runner does."""

    async def run() -> str:
        return type(make(spec)).__name__

    work: Awaitable[str] = run()
    return asyncio.run(work)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "parameters", "name"),
    [
        (services.speech_to_text, {"stt_language": "en"}, "LocalSTTService"),
        (_model, {}, "LocalLLM"),
        (_model, {"llm_type": "openai.gpt-4.1-mini"}, "OpenAILLMService"),
        (services.text_to_speech, {"tts_language": "de"}, "LocalTTSService"),
        (
            services.text_to_speech,
            {"tts_type": "cartesia", "tts_voice_id": "v", "tts_language": "en"},
            "CartesiaTTSService",
        ),
        (
            services.text_to_speech,
            {"tts_type": "elevenlabs", "tts_voice_id": "v"},
            "ElevenLabsTTSService",
        ),
    ],
)
def test_each_type_gives_its_service(
    make: Callable[[CallSpec], FrameProcessor],
    parameters: dict[str, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in KEYS:
        monkeypatch.setenv(variable, "a key")
    assert _made(make, _spec(**parameters)) == name


@pytest.mark.parametrize(
    ("make", "parameters", "status", "sentence"),
    [
        (
            services.speech_to_text,
            {"stt_type": "deepgram"},
            424,
            "stt_type deepgram needs a key; set DEEPGRAM_API_KEY",
        ),
        (
            _model,
            {"llm_type": "openai.gpt-4.1"},
            424,
            "llm_type openai.gpt-4.1 needs a key; set OPENAI_API_KEY",
        ),
        (services.text_to_speech, {"tts_type": "cartesia"}, 424, "tts_type cartesia needs a key"),
        (services.speech_to_text, {"stt_type": "x"}, 400, 'stt_type is "x"; expected local or'),
        (_model, {"llm_type": "openai."}, 400, 'llm_type is "openai."; expected local, echo or'),
        (services.text_to_speech, {"tts_type": "x"}, 400, 'tts_type is "x"; expected local, cart'),
        (services.text_to_speech, {"tts_voice_id": "nix"}, 400, 'espeak-ng has no voice "nix"'),
        (services.speech_to_text, {"stt_language": "de"}, 400, 'stt_language is "de" and the'),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_way_out(
    make: Callable[[CallSpec], FrameProcessor],
    parameters: dict[str, str],
    status: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in KEYS:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(RefusedError) as refused:
        _made(make, _spec(**parameters))
    assert refused.value.status == status
    assert str(refused.value).startswith(sentence)


def test_a_missing_package_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "a key")
    monkeypatch.setitem(__import__("sys").modules, "deepgram", None)
    with pytest.raises(RefusedError, match=r"pip install 'pipecat-ai\[deepgram\]'") as refused:
        _made(services.speech_to_text, _spec(stt_type="deepgram"))
    assert refused.value.status == 424


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_example_of_a_prepared_call_needs_no_key(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in KEYS:
        monkeypatch.delenv(variable, raising=False)
    text = (Path(__file__).parents[2] / page).read_text()
    [told] = re.findall(r"curl -X PUT [^`]*?-d '(.*?)'", text, re.DOTALL)
    body = json.loads(told)
    spec = read_spec({"id": "c1", "ws_url": "ws://127.0.0.1:1/", **body})
    assert spec.metadata == {"caller": "+4930123456"}
    made = [
        _made(make, spec) for make in (services.speech_to_text, _model, services.text_to_speech)
    ]
    assert made == ["LocalSTTService", "LocalLLM", "LocalTTSService"]


def test_the_key_of_the_call_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert _made(_model, _spec(llm_type="openai.gpt-4.1", llm_key="mine")) == "OpenAILLMService"
