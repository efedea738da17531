"""The voice and the recogniser, without Pipecat: what one says the other must hear."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipecat_bridge.embedded.espeak import Espeak, SpeechError
from pipecat_bridge.embedded.grammar import Grammar, GrammarError
from pipecat_bridge.embedded.local_stt import GRAMMAR
from pipecat_bridge.embedded.recogniser import transcribe

from .fake_bridge import RATE, telephone_speech

NUMBERS = (
    "#JSGF V1.0; grammar n; public <n> = one | two | three | <more>; <more> = /0.5/ four [ five ];"
)


@pytest.mark.parametrize("voice", ["en-us", "en-us+f2", "en-gb-x-rp"])
def test_what_callers_say_is_heard_at_telephone_quality(voice: str) -> None:
    said = [
        "what are your opening hours",
        "what time do you open",
        "what is your address",
        "how do i get there",
        "say that again",
        "thank you goodbye",
        "no thank you that is all",
    ]
    silence = bytes(RATE)
    heard = [
        transcribe(silence + telephone_speech(text, voice) + silence, RATE, GRAMMAR)
        for text in said
    ]
    assert heard == said


def test_other_rates_and_levels_are_heard_too() -> None:
    pcm16, rate = Espeak().synthesize("what is your address", "en-us")
    quiet = np.frombuffer(pcm16, "<i2") // 8
    assert transcribe(quiet.astype("<i2").tobytes(), rate, GRAMMAR) == "what is your address"


def test_what_is_not_in_the_grammar_is_not_heard() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1000, RATE * 2).astype("<i2").tobytes()
    speech = [
        telephone_speech(text)
        for text in ("I would like a pizza with extra cheese", "blue elephants dance at night")
    ]
    for audio in (b"", b"\x01", bytes(RATE * 2), noise, *speech):
        assert transcribe(audio, RATE, GRAMMAR) == ""


def test_a_grammar_can_be_given_as_text() -> None:
    assert transcribe(telephone_speech("three"), RATE, NUMBERS) == "three"


def test_a_grammar_accepts_its_sentences_and_no_parts_of_them() -> None:
    grammar = Grammar(NUMBERS)
    assert grammar.words == {"one", "two", "three", "four", "five"}
    for sentence in ("one", "four", "four five"):
        assert grammar.accepts(sentence)
    for sentence in ("", "five", "one two", "onetwo", "four five five"):
        assert not grammar.accepts(sentence)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("grammar g; <a> = b;", "no public rule"),
        ("public <a> = <b>;", "<b> is used but not defined"),
        ("public <a> = x <a>;", "refers to itself"),
    ],
)
def test_a_bad_grammar_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        Grammar(text)


def test_words_that_nobody_can_pronounce_are_named() -> None:
    with pytest.raises(GrammarError, match="qwrtz"):
        transcribe(bytes(RATE), RATE, "#JSGF V1.0; grammar g; public <a> = qwrtz | yes;")


def test_speech_has_the_length_that_its_speed_gives() -> None:
    slow, rate = Espeak().synthesize("one two three four five six", "en", rate_wpm=100)
    fast, _ = Espeak().synthesize("one two three four five six", "en", rate_wpm=200)
    assert rate == 22050
    assert 1.5 < len(slow) / len(fast) < 2.5
    assert 1.0 < len(fast) / 2 / rate < 3.0


def test_a_voice_that_does_not_exist_and_a_wild_speed_are_refused() -> None:
    with pytest.raises(SpeechError, match='no voice "xx-none"'):
        Espeak().synthesize("hello", "xx-none")
    with pytest.raises(ValueError, match="rate_wpm is 5; expected 80 to 450"):
        Espeak().synthesize("hello", "en", rate_wpm=5)


def test_speech_needs_neither_pipecat_nor_portaudio() -> None:
    program = (
        "import sys\n"
        "from pipecat_bridge.embedded.espeak import Espeak\n"
        "from pipecat_bridge.embedded.recogniser import transcribe\n"
        "pcm, rate = Espeak().synthesize('one', 'en-us')\n"
        f"print(transcribe(pcm, rate, {NUMBERS!r}), 'pipecat' in sys.modules,"
        " 'sounddevice' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["one", "False", "False"]
