"""The recogniser with which the demonstration judges its recording: that of the local bot."""

from __future__ import annotations

from typing import Final

# How well a sentence must fit the sound, as the recogniser counts it: 0 is perfect. In 54
# hearings of right answers, from calls at 8 and 16 kHz, the worst was -3.4. The bot asks more of
# a caller's short phrases, also of each word; of an answer's twenty words one always fits badly.
LEAST_FIT: Final = -3.8


def recognise(pcm16: bytes, rate: int, grammar: str) -> str:
    """The words of `grammar` that were spoken, or nothing when they are unfinished or fit badly."""
    from pipecat_bridge.embedded.grammar import (
        read_grammar,  # only the judge needs the bot's packages
    )
    from pipecat_bridge.embedded.recogniser import recogniser_for

    heard = recogniser_for(grammar).hear(pcm16, rate)
    good = heard.fit >= LEAST_FIT and read_grammar(grammar).accepts(heard.sentence)
    return heard.sentence if good else ""
