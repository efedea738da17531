"""The tests; under trial as under pytest, our own use of what is deprecated is an error."""

import warnings

_OURS = r"(?!.*site-packages)(.*/)?(pipecat_bridge|tests)[./]"
warnings.filterwarnings("error", category=DeprecationWarning, module=_OURS)
