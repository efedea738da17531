import pytest
from unittest import mock
from pytest_twisted import ensureDeferred
from tests.e2e import test_endings as te, test_signal as ts
from pipecat_bridge.runner.websocket import BotSocketFactory
from pipecat_bridge.transport import EagerTransport
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.audio.playout import Playout
te.CALLS=60
def raw(f): return f.__wrapped__ if hasattr(f,'__wrapped__') else f
@ensureDeferred
async def test_m1():
    with mock.patch.object(BotSocketFactory,'forget',lambda s,c: None): await raw(te.test_nothing_is_left_of_a_thousand_calls)()
@ensureDeferred
async def test_m2():
    with mock.patch.object(EagerTransport,'forget',lambda s: None): await raw(te.test_a_call_leaves_memory_without_a_garbage_collection)()
@ensureDeferred
async def test_m3():
    with mock.patch.object(BotSocketFactory,'forget',lambda s,c: None): await raw(te.test_what_is_counted_is_there_while_calls_run_and_is_drained)()
def test_m4():
    o=Playout.read; n=[0]
    def read(self, now):
        f=o(self,now); n[0]+=1
        return o(self,now) if n[0]==20000 else f
    with mock.patch.object(Playout,'read',read): ts.test_ten_minutes_are_found_back_to_the_sample(8000)
def test_m5():
    with mock.patch.object(ts,'make_resampler',lambda a,b:__import__('pipecat_bridge.audio.resample').audio.resample.make_resampler(a,b,'soxr')): ts.test_ten_minutes_are_found_back_to_the_sample(8000)
