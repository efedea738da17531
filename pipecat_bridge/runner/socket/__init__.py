"""The bot's WebSocket. All knowledge of Autobahn's insides is here."""
