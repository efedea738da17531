"""The sources of the configuration, and the errors for wrong values in them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_type_hints

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.options import Options
from tests.unit.files import scratch
from tests.unit.signals import wav

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "etc" / "pipecat-bridge.toml"
PAGES = (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")))


def defaults() -> dict[str, dict[str, Any]]:
    """Section -> key -> default."""
    plain: dict[str, dict[str, Any]] = msgspec.to_builtins(Options())
    return plain


def shipped_rows() -> list[tuple[str, str, str, str]]:
    """(section, key, value, comment) of every option of the shipped file that has a comment."""
    rows, section = [], ""
    for line in SHIPPED.read_text("utf-8").splitlines():
        if found := re.match(r"\[(\w+)\]", line):
            section = found[1]
        elif found := re.match(r"(\w+) = (.*?)\s+# (\S.*\S)$", line):
            rows.append((section, found[1], found[2], found[3]))
    return rows


class ConfigCase(SynchronousTestCase):
    def file(self, text: str | bytes) -> Path:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "bridge.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def faults(
        self, text: str | bytes = "", environment: dict[str, str] | None = None, *overrides: str
    ) -> list[str]:
        """The sentences; the path of the file in them is FILE."""
        path = self.file(text)
        with self.assertRaises(ConfigError) as caught:
            load_options(path, environment, overrides)
        return str(caught.exception).replace(str(path), "FILE").splitlines()


class LayerTests(ConfigCase):
    def test_defaults(self) -> None:
        self.assertEqual(load_options(), Options())
        self.assertEqual(load_options(self.file("")), Options())

    def test_the_last_word_wins(self) -> None:
        path = self.file("[calls]\nmax_calls = 1\nkeep_ended = 1\nmax_duration = 1\n")
        environment = {
            "PIPECAT_BRIDGE_CALLS__MAX_CALLS": "2",
            "PIPECAT_BRIDGE_CALLS__KEEP_ENDED": "2",
        }
        calls = load_options(path, environment, ["calls.max_calls=3", "calls.max_calls=4"]).calls
        self.assertEqual((calls.max_calls, calls.keep_ended, calls.max_duration), (4, 2, 1.0))
        self.assertEqual(calls.drain_timeout, 30.0)

    def test_text_is_read_as_toml_where_the_key_is_no_string(self) -> None:
        for key, text, value in (
            ("audiosocket.listen", "tcp:1", "tcp:1"),
            ("audiosocket.allow", '["10.0.0.0/8", "::1"]', ["10.0.0.0/8", "::1"]),
            ("audiosocket.g711", "alaw", "alaw"),
            ("audiosocket.g711", '"alaw"', "alaw"),
            ("runner.mode", "dialback", "dialback"),
            ("runner.require_token", "true", True),
            ("runner.max_requests", "7", 7),
            ("runner.idle_timeout", "7", 7.0),
            ("runner.idle_timeout", "7.5 ", 7.5),
            ("runner.url", "http://a/b=c", "http://a/b=c"),
            ("runner.parameters", '{llm_type = "x", n = 1}', {"llm_type": "x", "n": 1}),
            ("embedded.arguments", '["--verbose"]', ["--verbose"]),
            ("caller_audio.sample_rate", "8000", 8000),
        ):
            section, _, name = key.partition(".")
            for options in (
                load_options(overrides=[f"{key}={text}"]),
                load_options(environment={f"PIPECAT_BRIDGE_{section}__{name}".upper(): text}),
            ):
                self.assertEqual(getattr(getattr(options, section), name), value)

    def test_other_variables_are_left_alone(self) -> None:
        environment = {
            "RUNNER__URL": "x",
            "RUNNER_URL": "x",
            "MY_PIPECAT_BRIDGE_RUNNER__URL": "x",
            "MY_PIPECAT_BRIDGE_RUNNER_URL": "x",
            "PIPECAT_BRIDGE": "x",
        }
        self.assertEqual(load_options(environment=environment), Options())

    def test_variables_of_kubernetes_are_left_alone(self) -> None:
        for service in ("PIPECAT_BRIDGE", "PIPECAT_BRIDGE_API"):  # as services may be named
            environment = {
                f"{service}_SERVICE_HOST": "10.0.0.1",
                f"{service}_SERVICE_PORT": "9092",
                f"{service}_SERVICE_PORT_AUDIOSOCKET": "9092",
                f"{service}_PORT": "tcp://10.0.0.1:9092",
                f"{service}_PORT_9092_TCP": "tcp://10.0.0.1:9092",
                f"{service}_PORT_9092_TCP_ADDR": "10.0.0.1",
                f"{service}_PORT_9092_TCP_PORT": "9092",
                f"{service}_PORT_9092_TCP_PROTO": "tcp",
            }
            self.assertEqual(load_options(environment=environment), Options())


class FaultTests(ConfigCase):
    def test_a_wrong_value(self) -> None:
        for line, expected in (
            ("[calls]\nmax_calls = 1.5", "[calls] max_calls = 1.5: expected a whole number, got"),
            (
                "[calls]\nmax_calls = -1",
                "[calls] max_calls = -1: expected a whole number from 0 to 1000000",
            ),
            ("[calls]\nmax_calls = true", "[calls] max_calls = true: expected a whole number"),
            (
                "[calls]\nmax_duration = inf",
                "[calls] max_duration = inf: expected a number from 0 to 604800",
            ),
            (
                "[calls]\nmax_duration = nan",
                "[calls] max_duration = nan: expected a number from 0 to 604800",
            ),
            (
                "[runner]\nurl = 5",
                "[runner] url = 5: expected a string or an array, got a whole number",
            ),
            ("[audiosocket]\nallow = 5", "[audiosocket] allow = 5: expected an array, got"),
            ("[audiosocket]\nallow = [5]", "[audiosocket] allow = [5]: expected a string, got"),
            (
                "[websocket]\nread_buffer = 9",
                "[websocket] read_buffer = 9: expected a whole number",
            ),
            (
                "[runner]\nidle_timeout = 0",
                "[runner] idle_timeout = 0: expected a number from 0.001 to",
            ),
            (
                '[audiosocket]\ng711 = "opus"',
                '[audiosocket] g711 = "opus": expected one of "ulaw", "alaw"',
            ),
            (
                "[caller_audio]\nsample_rate = 11025",
                "[caller_audio] sample_rate = 11025: expected one of 8000, 12000, 16000, 22050",
            ),
        ):
            [fault] = self.faults(line)
            self.assertTrue(fault.startswith(f"FILE: {expected}"), fault)

    def test_what_the_types_do_not_say(self) -> None:
        for override, expected in (
            ("audiosocket.listen=tpc:9092", "expected an endpoint such as tcp:9092:interface="),
            ("runner.listen=9092", "expected an endpoint"),
            ("api.listen=tcp:http", "expected an endpoint"),
            ("api.listen=tcp", "expected an endpoint"),
            ("api.listen=", "expected an endpoint"),
            ("api.listen=tcp:70000", "expected an endpoint"),
            ("api.listen=tcp:8080:interfaec=::1", "expected an endpoint"),
            ("api.listen=tls:8080", "expected an endpoint such as ssl:9092:privateKey="),
            ("runner.url=ftp://host", "expected a URL such as http://"),
            ("runner.url=localhost:8000", "expected a URL such as http://"),
            ("runner.url=", "expected a URL such as http://"),
            ("runner.url=http://[x", "expected a URL such as http://"),
            ("runner.url=http://host:x", "expected a URL such as http://"),
            ("runner.dialback_url=http://host", "expected a URL such as ws://"),
            ('audiosocket.allow=["10.0.0.1/8"]', "has host bits set, expected a network such as"),
            (
                'api.hosts=["Bridge.Example:8080"]',
                "'Bridge.Example:8080' can be no host, expected a",
            ),
            ('api.hosts=["http://bridge.example"]', "can be no host, expected a host such as"),
            ('api.hosts=[""]', "it has no host, expected a host such as"),
            ("calls.keep_ended=10001", "expected a whole number from 0 to 10000"),
            ('audiosocket.allow=["asterisk"]', 'expected a network such as "10.0.0.0/8"'),
            ("bot_audio.max_prebuffer=0.01", "expected at least prebuffer, 0.03"),
            ("runner.parameters={day = 2026-01-01}", "expected values that JSON can express"),
            ("runner.parameters={a = nan}", "expected values that JSON can express"),
            ("runner.parameters={a = '\udc80'}", "expected values that JSON can express"),
        ):
            [fault] = self.faults("", None, override)
            name, _, value = override.partition("=")
            section, _, key = name.partition(".")
            self.assertTrue(fault.startswith(f"--set {name}: [{section}] {key} = "), fault)
            self.assertIn(expected, fault)
            if key != "parameters":
                self.assertIn(value, fault)

    def test_endpoints_that_are_good(self) -> None:
        for listen in (
            "tcp:0",
            "tcp:9092:interface=0.0.0.0",
            r"tcp6:9092:interface=\:\:1",
            "haproxy:tcp:9092",
            "systemd:INET:name=phones",
            "haproxy:systemd:INET:name=phones",
        ):
            self.assertEqual(load_options(overrides=[f"api.listen={listen}"]).api.listen, listen)

    def test_where_runners_dial_must_be_said_when_it_cannot_be_known(self) -> None:
        listen = "[runner]\nlisten = 'unix:/run/bots'\n"
        [fault] = self.faults(listen)
        self.assertEqual(
            fault,
            "default: [runner] dialback_url is empty: expected the URL at which bots reach"
            ' "unix:/run/bots"',
        )
        load_options(self.file(listen + 'dialback_url = "wss://bots.example"'))

    def test_a_hold_file_is_looked_into(self) -> None:
        path = scratch(self)
        path.write_bytes(wav(bytes(16000), 8000))
        self.assertEqual(load_options(overrides=[f"calls.hold_file={path}"]).calls.max_restarts, 3)
        for content, fault in (
            (wav(bytes(16000), 8000)[:20], f'"{path}": not a PCM WAV file: '),
            (wav(b"", 8000), f'"{path}": 0 bytes of audio: expected 20 ms or more'),
            (None, f'"{path}": No such file or directory, expected a WAV file'),
        ):
            path.unlink() if content is None else path.write_bytes(content)
            [said] = self.faults("", None, f"calls.hold_file={path}")
            name = "--set calls.hold_file: [calls] hold_file = "
            self.assertTrue(said.startswith(name + fault), said)

    def test_unknown_names(self) -> None:
        for text, expected in (
            ("[runner]\nurll = 1", "[runner] unknown key urll (did you mean url?)"),
            ("[calls]\nmaximum_calls = 1", "[calls] unknown key maximum_calls (did you mean"),
            ("[api]\nx = 1", "[api] unknown key x, expected one of: listen"),
            ("[runnr]\nurl = 1\nmode = 2", "unknown section [runnr] (did you mean runner?)"),
            ("[x]", "unknown section [x], expected one of: audiosocket, runner"),
        ):
            [fault] = self.faults(text)
            self.assertTrue(fault.startswith(f"FILE: {expected}"), fault)

    def test_variables_with_one_underscore(self) -> None:
        for section, keys in defaults().items():
            for key in keys:
                wrong = f"PIPECAT_BRIDGE_{section}_{key}".upper()
                right = f"PIPECAT_BRIDGE_{section}__{key}".upper()
                self.assertEqual(
                    self.faults("", {wrong: "x"}),
                    [f"environment {wrong}: unknown variable (did you mean {right}?)"],
                )

    def test_variables_that_are_no_option(self) -> None:
        for name, expected in (
            ("RUNER_MODE", " (did you mean PIPECAT_BRIDGE_RUNNER__MODE?)"),
            ("API.LISTEN", " (did you mean PIPECAT_BRIDGE_API__LISTEN?)"),
            ("DEBUG", ", expected PIPECAT_BRIDGE_SECTION__KEY, such as PIPECAT_BRIDGE_RUNNER__URL"),
            ("", ", expected PIPECAT_BRIDGE_SECTION__KEY, such as PIPECAT_BRIDGE_RUNNER__URL"),
        ):
            name = f"PIPECAT_BRIDGE_{name}"
            [fault] = self.faults("", {name: "sk-secret"})
            self.assertEqual(fault, f"environment {name}: unknown variable{expected}")

    def test_outside_of_a_section(self) -> None:
        self.assertEqual(
            self.faults('listen = "tcp:1"'), ["FILE: listen is outside of a [section]"]
        )
        for text in ("runner = 5", "[[runner]]\nurl = 'http://x'"):
            self.assertEqual(self.faults(text), ["FILE: runner = ..: expected a table, [runner]"])

    def test_where_it_came_from(self) -> None:
        environment = {"PIPECAT_BRIDGE_CALLS__MAX_CALLS": "many"}
        faults = self.faults("[api]\nlisten = 1", environment, "calls.keep_ended=", "nonsense")
        self.assertEqual(
            faults,
            [
                "--set nonsense: expected section.key=value",
                "FILE: [api] listen = 1: expected a string, got a whole number",
                "environment PIPECAT_BRIDGE_CALLS__MAX_CALLS: [calls] max_calls = many:"
                " expected a whole number, got a string",
                '--set calls.keep_ended: [calls] keep_ended = "": expected a whole number,'
                " got a string",
            ],
        )

    def test_faults_of_all_kinds_at_once(self) -> None:
        faults = self.faults(
            "[runner]\nurl = 'x'\nmode = 'y'\nfoo = 1\n[audiosocket]\nallow = ['z']\n[foo]\na = 1"
        )
        self.assertEqual(len(faults), 5)
        for word in ("url", "mode", "foo", "allow", "[foo]"):
            self.assertTrue(any(word in fault for fault in faults), word)

    def test_a_value_is_one_value(self) -> None:
        [fault] = self.faults("", None, "calls.max_calls=1\nmax_duration=2")
        self.assertIn("expected a whole number", fault)

    def test_keys_of_services_are_not_repeated(self) -> None:
        secret = "sk-very-secret"
        for value in (f'"{secret}"', f'{{llm_key = "{secret}", day = 2026-01-01}}', secret):
            environment = {"PIPECAT_BRIDGE_RUNNER__PARAMETERS": value}
            self.assertNotIn(secret, "\n".join(self.faults("", environment)))

    def test_not_toml(self) -> None:
        [fault] = self.faults("[runner]\nurl = \n")
        self.assertRegex(fault, r"^FILE: not TOML: .*line 2")
        [fault] = self.faults(b"[runner]\nurl = '\xff'\n")
        self.assertRegex(fault, "^FILE: not TOML: .*utf-8")

    def test_no_such_file(self) -> None:
        for path, why in ((Path("/nonexistent/x.toml"), "No such file"), (ROOT, "Is a directory")):
            with self.assertRaisesRegex(ConfigError, f"^{re.escape(str(path))}: {why}"):
                load_options(path)


class ShippedFileTests(ConfigCase):
    def setUp(self) -> None:
        self.text = SHIPPED.read_text("utf-8")
        self.parsed = tomllib.loads(self.text)

    def test_it_names_every_option_with_its_default_and_no_other(self) -> None:
        self.assertEqual(self.parsed, defaults())
        for section, keys in defaults().items():
            self.assertEqual(list(self.parsed[section]), list(keys), "in the order of Options")

    def test_its_types_are_those_of_the_defaults(self) -> None:
        for section, keys in defaults().items():
            for key, value in keys.items():
                self.assertIs(type(self.parsed[section][key]), type(value), f"{section}.{key}")

    def test_it_loads(self) -> None:
        self.assertEqual(load_options(SHIPPED), Options())

    def test_each_line_says_what_it_is_for(self) -> None:
        commented = {(section, key) for section, key, _, _ in shipped_rows()}
        self.assertEqual(
            commented, {(one, key) for one, keys in defaults().items() for key in keys}
        )

    def test_each_line_can_be_read_alone(self) -> None:
        for section, key, _, comment in shipped_rows():
            self.assertNotRegex(comment, r"^(and|up to|for so|as (in|above))\b", f"{section}.{key}")


class PageTests(ConfigCase):
    def test_the_pages_name_options_that_exist(self) -> None:
        for page in PAGES:
            named = re.findall(r"`\[(\w+)\]\s+(\w+)", page.read_text("utf-8"))
            unknown = [(one, key) for one, key in named if key not in defaults().get(one, {})]
            self.assertEqual(unknown, [], page.name)

    def test_the_page_about_options_leads_to_the_list(self) -> None:
        text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
        self.assertIn(f"](../{SHIPPED.relative_to(ROOT)})", text)

    def test_sections_are_described_in_options(self) -> None:
        for section, shape in get_type_hints(Options).items():
            self.assertTrue((shape.__doc__ or "").startswith(f"`[{section}]`: "), section)
