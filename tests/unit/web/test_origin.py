"""Requests that a browser sends for a page from elsewhere change nothing, and read nothing."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.test.requesthelper import DummyRequest

from pipecat_bridge.web.api import ApiSite
from pipecat_bridge.workers.client import passed_on

OWN = "127.0.0.1:8080"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        root = Resource()
        self.page = Resource()
        root.putChild(b"stop", self.page)
        self.site = ApiSite(Clock(), root, ("Bridge.example.org",))

    def fault(self, method: str = "POST", host: str | bytes = OWN, **headers: str | bytes) -> str:
        """Why a request is refused; "" if it gets to the page."""
        request = DummyRequest([b"stop"])
        request.method = method.encode()
        for name, value in {"host": host, **headers}.items():
            if value:
                raw = value if isinstance(value, bytes) else value.encode()
                request.requestHeaders.setRawHeaders(name.replace("_", "-").encode(), [raw])
        found = self.site.getResourceFor(request)
        if found is self.page:
            return ""
        body = found.render(request)
        self.assertEqual(request.responseCode, 403)
        return str(body.decode())


class HostTests(Case):
    def test_names_of_ours(self) -> None:
        for host in (
            *("127.0.0.1:8080", "[::1]:8080", "[fe80::1]", "localhost", "pbx:8080", "192.168.1.7"),
            *("bridge.example.org", "Bridge.Example.org:8080", ""),
        ):
            for method in ("GET", "POST"):
                self.assertEqual(self.fault(method, host), "", host)

    def test_a_foreign_name_reads_nothing_either(self) -> None:
        for host in (
            *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[bad", "a.b]"),
            *("a.bridge.example.org", "bridge.example.org.", "1.2.3"),
        ):
            for method in ("GET", "POST"):
                self.assertIn("[api] hosts", self.fault(method, host), host)


class OriginTests(Case):
    def test_the_dialplan_and_scripts(self) -> None:
        for method in ("GET", "POST", "PUT"):
            self.assertEqual(self.fault(method), "")

    def test_its_own_page(self) -> None:
        own = f"http://{OWN}"
        self.assertEqual(self.fault(origin=own, sec_fetch_site="same-origin"), "")
        self.assertEqual(self.fault(sec_fetch_site="none"), "")

    def test_pages_from_elsewhere(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            for origin in ("http://evil.example", "null", "http://127.0.0.1:3000", "https://pbx"):
                self.assertIn("changes nothing", self.fault(method, origin=origin), origin)
            for site in ("cross-site", "same-site", "anything"):
                self.assertIn("changes nothing", self.fault(method, sec_fetch_site=site), site)

    def test_a_page_behind_a_proxy_that_changes_the_host(self) -> None:
        for origin in ("https://bridge.example.org", "http://Bridge.example.org:8443"):
            self.assertEqual(self.fault(origin=origin, sec_fetch_site="same-origin"), "")
            self.assertIn("another site", self.fault(origin=origin, sec_fetch_site="same-site"))
        for origin in ("https://bridge.example.org.evil.example", "https://a.bridge.example.org"):
            self.assertIn("changes nothing", self.fault(origin=origin), origin)

    def test_who_only_looks_is_left_to_the_browsers_own_rules(self) -> None:
        self.assertEqual(self.fault("GET", origin="http://evil.example"), "")

    def test_what_is_no_text_and_no_url(self) -> None:
        self.assertIn("[api] hosts", self.fault(host=b"\xbb.example"))
        for origin in (b"\xbb", b"http://[", b"http://\xff", "http://[::1"):
            self.assertIn("changes nothing", self.fault(origin=origin), origin)
        self.assertIn("changes nothing", self.fault(sec_fetch_site=b"\xbb"))


class WorkerTests(Case):
    """With workers, the supervisor judges a request, and passes it on without its Host."""

    def test_a_request_of_its_own_page_that_was_passed_on(self) -> None:
        asked = Headers({"host": [OWN], "origin": [f"http://{OWN}"], "accept": ["*/*"]})
        asked.setRawHeaders("sec-fetch-site", ["same-origin"])
        sent = {name.decode().lower(): value.decode() for name, value in passed_on(asked)}
        self.assertEqual(sent, {"accept": "*/*"})
        self.assertEqual(self.fault(host="worker", **sent), "")
