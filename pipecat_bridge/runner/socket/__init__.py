"""The bot's WebSocket. Only this package uses the internals of Autobahn."""
