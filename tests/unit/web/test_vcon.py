"""A call as a vCon, checked with a package that reads them."""

from __future__ import annotations

import json
import warnings

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.record import rejected
from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.web.vcon import vcon_of

with warnings.catch_warnings():  # of what the package itself uses
    warnings.simplefilter("ignore")
    from vcon import Vcon

CALL = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"


class VconTests(SynchronousTestCase):
    def test_a_reader_takes_it(self) -> None:
        record = rejected(CALL, "pbx", "1.2.3.4:5", "too many", 1_700_000_000.5)
        turns = [
            Turn("bot", "Good morning.", 1_700_000_001.0, 1_700_000_002.5),
            Turn("caller", "Hello?", 1_700_000_003.0, 1_700_000_003.5),
        ]
        made = vcon_of(record, turns)
        found = Vcon.build_from_json(json.dumps(made))
        _, faults = found.is_valid()
        # Its versions for Python 3.11 know no dialog of text, which the draft has.
        unknown = [f"Dialog {at} has invalid mimetype: text/plain" for at in range(len(turns))]
        self.assertIn(faults, ([], unknown))
        self.assertEqual([each["body"] for each in found.dialog], ["Good morning.", "Hello?"])
        self.assertEqual([each["originator"] for each in found.dialog], [1, 0])
        self.assertEqual(found.dialog[0]["start"], "2023-11-14T22:13:21.000Z")
        [attachment] = found.attachments
        self.assertEqual(json.loads(attachment["body"])["id"], CALL)

    def test_two_calls_with_one_id_are_two(self) -> None:
        first, second = (
            vcon_of(rejected(CALL, "pbx", "1.2.3.4:5", "too many", at), []) for at in (1.0, 2.0)
        )
        self.assertNotEqual(first["uuid"], second["uuid"])
