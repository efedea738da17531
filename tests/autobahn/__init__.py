"""The Autobahn test suite against both roles of the bridge's WebSockets: make test-autobahn."""
