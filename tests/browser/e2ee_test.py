#!/usr/bin/env python3
"""livekit-client's end-to-end encryption: the server carries what it cannot read."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import people  # noqa: E402


class EncryptionTest(people.PeopleTest):
    def test_who_has_the_key_hears_and_reads_and_nobody_else(self):
        self.open("ann", "secret", secret="north")
        self.open("bob", "secret", secret="north")
        self.open("eve", "secret", secret="south")  # another key
        self.pages.do("ann", "microphone", True)
        self.grows("bob", "heard", "ann", "packets", 100)
        self.grows("bob", "heard", "ann", "energy", 0.01)
        self.grows("eve", "heard", "ann", "packets", 100)  # the packets come
        before = self.of("eve", "heard", "ann")["energy"]
        self.grows("eve", "heard", "ann", "packets", 100)
        self.assertLess(self.of("eve", "heard", "ann")["energy"] - before, 0.001, "without the key nothing is heard")
        mark = self.pages.mark()
        self.pages.do("ann", "data", "the plan")
        self.pages.wait(lambda e: e["page"] == "bob" and e["what"] == "data" and e["text"] == "the plan", 10,
                        "bob reads ann's packet", mark)
        self.pages.do("ann", "text", "the whole plan")
        self.pages.wait(lambda e: e["page"] == "bob" and e["what"] == "text" and e["text"] == "the whole plan", 10,
                        "bob reads ann's text", mark)
        with self.pages.changed:
            read = [e for e in self.pages.events[mark:] if e["page"] == "eve" and e["what"] in ("data", "text")]
        self.assertEqual(read, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
