# Python 2.7. wstest that listens on loopback only: by itself its fuzzing server listens everywhere.
import sys

from autobahntestsuite import wstest
from twisted.internet import reactor

_listen = reactor.listenTCP


def _on_loopback(port, factory, backlog=50, interface=""):
    return _listen(port, factory, backlog, "127.0.0.1")


reactor.listenTCP = _on_loopback

if __name__ == "__main__":
    sys.exit(wstest.run())
