def fir(
    history: bytearray,
    pcm: bytes | bytearray | memoryview,
    taps: bytes,
    up: int,
    down: int,
    phase: int,
    /,
) -> bytes: ...
def mask(payload: bytes, key: bytes, /) -> bytes: ...
