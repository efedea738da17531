"""The runner that comes with the bridge: a Pipecat pipeline for each call, in its own process."""
