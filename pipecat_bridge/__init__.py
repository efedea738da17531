"""Puts Pipecat voice bots on Asterisk phone lines."""

import os

# Products of 20 ms of audio are too small for a second thread, and OpenBLAS would start one for
# each core when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
