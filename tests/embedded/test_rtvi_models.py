"""RTVI as the real Pipecat's models have it: ours read by them, theirs read by us."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from pipecat_bridge import __version__
from pipecat_bridge.wire import rtvi

pytestmark = pytest.mark.pipecat

# In a process of its own: the daemon must not need Pipecat, nor its tests import it.
PIPECAT = """
import json, sys
import pipecat.processors.frameworks.rtvi.models as models

SHAPES = {
    "client-ready": "ClientReadyData",
    "send-text": "SendTextData",
    "dtmf": "DTMFInputData",
    "client-message": "RawClientMessageData",
}
read = []
for text in json.load(sys.stdin):
    message = models.Message.model_validate(json.loads(text))
    shape = getattr(models, SHAPES[message.type])
    read.append(shape.model_validate(message.data).model_dump(mode="json"))

text = models.TextMessageData(text="hello")
said = {"text": "hello", "user_id": "", "timestamp": "t", "final": True}
sent = [
    models.BotReady(id="1", data={"version": "1.2.0", "about": {"library": "pipecat-ai"}}),
    models.BotInterruptedMessage(),
    models.UserTranscriptionMessage(data=said),
    models.BotTranscriptionMessage(data=text),
    models.BotOutputMessage(data={"text": "hello", "output_type": "word", "spoken": True}),
    models.BotOutputMessage(data={"text": "hello", "output_type": "word", "will_be_spoken": True}),
    models.BotLLMTextMessage(data=text),
    models.BotLLMStartedMessage(),
    models.BotLLMStoppedMessage(),
    models.BotStartedSpeakingMessage(),
    models.BotStoppedSpeakingMessage(),
    models.UserStartedSpeakingMessage(),
    models.UserStoppedSpeakingMessage(),
    models.MetricsMessage(data={"ttfb": []}),
    models.Error(data={"error": "broken", "fatal": True}),
    models.ServerMessage(data={"hangup": True}),
    models.BotTTSTextMessage(data=text),
    models.ErrorResponse(id="1", data={"error": "broken"}),
]
texts = [
    json.dumps(one.model_dump(mode="json", exclude_none=without_none))
    for one in sent
    for without_none in (True, False)
]
json.dump({"read": read, "sent": texts}, sys.stdout)
"""

RECEIVED: list[rtvi.Event] = [
    rtvi.BotReady("1.2.0"),
    rtvi.BotInterrupted(),
    rtvi.UserTranscription("hello", True, "t", ""),
    rtvi.BotTranscription("hello"),
    rtvi.BotOutput("hello", True),
    rtvi.BotOutput("hello", False),
    rtvi.BotLLMText("hello"),
    rtvi.BotLLMStarted(),
    rtvi.BotLLMStopped(),
    rtvi.BotStartedSpeaking(),
    rtvi.BotStoppedSpeaking(),
    rtvi.UserStartedSpeaking(),
    rtvi.UserStoppedSpeaking(),
    rtvi.Metrics({"ttfb": []}),
    rtvi.BotError("broken", True),
    rtvi.ServerMessage({"hangup": True}),
    rtvi.Other("bot-tts-text", {"text": "hello"}),
    rtvi.Other("error-response", {"error": "broken"}),
]


def asked_of_pipecat(texts: list[str]) -> dict[str, Any]:
    """`read`: what its models make of our messages; `sent`: messages of theirs."""
    ran = subprocess.run(
        [sys.executable, "-c", PIPECAT],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def test_both_ways() -> None:
    digits = "0123456789*#"
    ours = [
        rtvi.client_ready(__version__),
        rtvi.send_text("hello", run_immediately=False, audio_response=True),
        rtvi.client_message("transfer", {"to": "5"}),
        *(rtvi.dtmf(digit) for digit in digits),
    ]
    answer = asked_of_pipecat(ours)
    ready, text, message, *keys = answer["read"]
    assert ready["version"] == rtvi.VERSION
    assert ready["about"]["library_version"] == __version__
    assert text["options"] == {"run_immediately": False, "audio_response": True}
    assert (message["t"], message["d"]) == ("transfer", {"to": "5"})
    assert [key["buttons"] for key in keys] == [[digit] for digit in digits]
    # Each message of theirs comes without nulls and with them.
    wanted = [event for event in RECEIVED for _ in range(2)]
    assert [rtvi.parse(each) for each in answer["sent"]] == wanted
