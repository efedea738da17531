"""Voice activity detection whose model is loaded once for all calls."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams


def voice_activity(rate: int, stop_seconds: float) -> SileroVADAnalyzer:
    """A Silero analyzer for one call; speech has ended after `stop_seconds` without any.

    Pipecat loads the model for every analyzer: 10 MB, and 50 ms in which no other call is
    served. A copy has all the state of an analyzer of its own, and shares with the others only
    the session, which keeps none between runs and may run in several threads at a time.
    """
    loaded = _loaded(rate)
    session, executor = loaded._model.session, loaded._executor
    own_parts = {id(session): session, id(executor): ThreadPoolExecutor(max_workers=1)}
    analyzer = copy.deepcopy(loaded, own_parts)
    analyzer.set_params(VADParams(stop_secs=stop_seconds))
    return analyzer


@lru_cache(maxsize=2)
def _loaded(rate: int) -> SileroVADAnalyzer:
    analyzer = SileroVADAnalyzer(sample_rate=rate)
    analyzer.set_sample_rate(rate)
    return analyzer
