"""Decides what the close of a bot's socket means: failed start, lost bot, or end in good order."""

from __future__ import annotations

from pipecat_bridge.errors import PeerBusyError, PeerError
from pipecat_bridge.runner.link.beginning import Beginning
from pipecat_bridge.runner.link.bot_stream import BotStream
from pipecat_bridge.runner.link.interfaces import Loss, SocketClose


def start_error(how: SocketClose, beginning: Beginning) -> PeerError:
    """The error of a start whose bot closed before it was ready. `beginning`: what it had sent."""
    text = f"the bot was lost before it was ready: {how.reason}"
    if not beginning.frames and not beginning.faults:
        text += "; it had sent nothing"
    if beginning.error:
        text += f"; its last error: {beginning.error}"
    elif beginning.faults:
        text += f"; {beginning.faults[0][1]}"
    return PeerBusyError(text) if how.busy else PeerError(text)


def loss_of(how: SocketClose, bot: BotStream) -> Loss | None:
    """The loss of a ready bot whose socket closed; None if the bot ended in good order."""
    if bot.fatal:
        return Loss("error", f"the bot reported a fatal error: {bot.fatal}")
    if not bot.ending and not how.clean:
        return Loss("connection", how.reason, how.busy)
    if not bot.stats.spoke:
        return Loss("silent", "the bot ended the call without having said anything")
    return None
