"""The PROXY header: both versions, at every split, and bytes that are not a header."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.wire.proxy import LONGEST, ProxyHeader, read_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REST = b"\x01\x00\x10"


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack(">H", len(body)) + body


def addresses(source: str, to: str, port: int) -> bytes:
    return ip_address(source).packed + ip_address(to).packed + struct.pack(">HH", port, 9092)


TOLD = {
    b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 9092\r\n": ("10.0.0.7", 4711),
    b"PROXY TCP6 fd00::7 fd00::1 65535 9092\r\n": ("fd00::7", 65535),
    v2(0x21, 0x11, addresses("10.0.0.7", "10.0.0.1", 4711)): ("10.0.0.7", 4711),
    v2(0x21, 0x21, addresses("fd00::7", "fd00::1", 1)): ("fd00::7", 1),
    v2(0x21, 0x11, addresses("10.0.0.7", "10.0.0.1", 4711) + bytes(500)): ("10.0.0.7", 4711),
}
NOT_TOLD = [
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN fd00::7 fd00::1 65535 9092\r\n",
    v2(0x20, 0x00, b""),
    v2(0x20, 0x11, addresses("10.0.0.7", "10.0.0.1", 4711)),
    v2(0x21, 0x00, b"anything"),
    v2(0x21, 0x31, bytes(216)),
]


class HeaderTests(SynchronousTestCase):
    def test_who_has_connected_at_every_split(self) -> None:
        cases = {**TOLD, **dict.fromkeys(NOT_TOLD, ("", 0))}
        for header, client in cases.items():
            with self.subTest(header=header):
                for end in range(len(header)):
                    self.assertIsNone(read_header(header[:end]))
                for rest in (b"", REST, b"\r\n"):
                    self.assertEqual(read_header(header + rest), ProxyHeader(len(header), *client))

    def test_it_is_what_twisted_reads(self) -> None:
        for header, client in TOLD.items():
            parser = V1Parser() if header.startswith(b"PROXY") else V2Parser()
            told = parser.feed(header + REST)[0].source
            self.assertEqual((ip_address(told.host), told.port), (ip_address(client[0]), client[1]))

    def test_what_is_none(self) -> None:
        for data, words in (
            (b"\x01", "^0x01 where a PROXY header is expected"),
            (b"GET / HTTP/1.1\r\n", "^0x47 where"),
            (b"PROXX", "^0x50 where"),
            (b"\r\n\r\nX", "^0x0d where"),
            (b"PROXY " + b"x" * 101, "without an end in 107 bytes"),
            (b"PROXY TCP4 10.0.0.7 10.0.0.1 4711\r\n", "a wrong PROXY header: b'PROXY TCP4 10"),
            (b"PROXY TCP4 fd00::7 fd00::1 1 2\r\n", "a wrong PROXY header"),
            (b"PROXY TCP4 10.0.0.7 10.0.0.1 66000 1\r\n", "a wrong PROXY header"),
            (b"PROXY TCP4 10.0.0.7 10.0.0.1 x 1\r\n", "a wrong PROXY header"),
            (b"PROXY TCP9 10.0.0.7 10.0.0.1 1 1\r\n", "a wrong PROXY header"),
            (b"PROXY TCP4 \xff 10.0.0.1 1 1\r\n", "a wrong PROXY header"),
            (b"PROXY \r\n", "a wrong PROXY header"),
            (v2(0x11, 0x11, bytes(12)), "a wrong PROXY header: 0d 0a"),
            (v2(0x22, 0x11, bytes(12)), "a wrong PROXY header"),
            (v2(0x21, 0x11, bytes(11)), "without its addresses"),
            (v2(0x21, 0x21, bytes(35)), "without its addresses"),
            (v2(0x21, 0x11, bytes(LONGEST)), "a wrong PROXY header"),
        ):
            with self.subTest(data=data), self.assertRaisesRegex(ValueError, words) as caught:
                read_header(data)
            self.assertTrue(str(caught.exception).isprintable())
