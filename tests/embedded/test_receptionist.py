"""The rules of the front desk."""

from __future__ import annotations

import pytest

from pipecat_bridge.embedded.espeak import Espeak
from pipecat_bridge.embedded.receptionist import KEY, UNCLEAR, Receptionist


@pytest.mark.parametrize(
    ("heard", "answer"),
    [
        ("what are your opening hours", "We are open Monday to Friday"),
        ("When do you close?", "We are open Monday to Friday"),
        ("are you open on saturday", "Yes, on Saturdays"),
        ("are you open on sunday", "No, we are closed"),
        ("thank you, where are you", "Our address is"),
        ("thank you very much", "You are welcome"),
        ("hello", "Hello! You can ask me"),
        (UNCLEAR, "Sorry, I did not understand"),
        ("a pizza with extra cheese", "Sorry, I did not understand"),
        (KEY.format("1"), "We are open Monday to Friday"),
        (KEY.format("2"), "Our address is"),
        (KEY.format("5"), "Sorry, I did not understand"),
    ],
)
def test_a_question_gets_its_answer(heard: str, answer: str) -> None:
    reply = Receptionist().answer(heard)
    assert reply.text.startswith(answer)
    assert not reply.ends_call


@pytest.mark.parametrize(
    "heard", ["goodbye", "no thank you that's all", "thank you goodbye", KEY.format("9")]
)
def test_a_goodbye_ends_the_call(heard: str) -> None:
    reply = Receptionist().answer(heard)
    assert reply.text.endswith("Goodbye!")
    assert reply.ends_call


def test_the_last_thing_said_is_said_again() -> None:
    desk = Receptionist()
    assert desk.answer("say that again") == desk.greet()
    address = desk.answer("what is your address")
    desk.answer(UNCLEAR)
    assert desk.answer("could you repeat that please") == address


def test_a_caller_who_is_known_is_greeted_by_name() -> None:
    assert Receptionist(caller_name="Alice").greet().text.startswith("Hello, Alice, this is")
    assert Receptionist().greet().text.startswith("Hello, this is")


def test_the_opening_hours_take_long_enough_to_be_interrupted() -> None:
    pcm16, rate = Espeak().synthesize(Receptionist().answer("opening hours").text, "en-us")
    assert len(pcm16) / 2 / rate > 6.0
