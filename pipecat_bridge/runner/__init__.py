"""The bot side: the runner over HTTP, the bot over WebSocket."""
