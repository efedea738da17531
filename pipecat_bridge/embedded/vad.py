"""Voice activity detection, with one loaded model for all calls."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams


def voice_activity(rate: int, stop_seconds: float) -> SileroVADAnalyzer:
    """A Silero analyzer for one call. Speech ends after `stop_seconds` of silence.

    Pipecat loads the model for every analyzer: that costs 10 MB, and 50 ms in which the process
    serves no other call. So each call gets a copy with its own state. The copies share only the
    session, which keeps no state between runs and may run in several threads at once.
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
