"""Turns of the loop, one at a time. `Clock.advance` does at once what a turn puts off."""

from twisted.internet.task import Clock


def turn(clock: Clock) -> None:
    """Do what is due now, but not what that puts off until the next turn."""
    for call in list(clock.getDelayedCalls()):
        if call.getTime() <= clock.seconds():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
