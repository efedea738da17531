"""Speech recognition for the judgement of the demonstration, with the local bot's recogniser."""

from __future__ import annotations

from typing import Final

# How well a sentence must fit the sound, on the recogniser's scale: 0 is perfect. In 54 right
# answers, from calls at 8 and 16 kHz, the worst was -3.4. The bot is stricter with a caller's short
# phrases and checks each word. In an answer of twenty words one word always fits badly.
LEAST_FIT: Final = -3.8


def recognise(pcm16: bytes, rate: int, grammar: str) -> str:
    """The words of `grammar` that were spoken; "" if a sentence is unfinished or fits badly."""
    from pipecat_bridge.embedded.grammar import (
        read_grammar,  # only the judge needs the bot's packages
    )
    from pipecat_bridge.embedded.recogniser import recogniser_for

    heard = recogniser_for(grammar).hear(pcm16, rate)
    good = heard.fit >= LEAST_FIT and read_grammar(grammar).accepts(heard.sentence)
    return heard.sentence if good else ""
