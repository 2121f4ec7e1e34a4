#!/usr/bin/env python3
"""Every message that the gateway sends a realtime provider, against the types of the provider's own package.

Runs realtime_test (PARLEY_BUILD_DIR), whose provider writes down what it gets. Nothing may be unknown to the package: what it
does not know, its model keeps as an extra field.
"""
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import pydantic
from openai.types.realtime import RealtimeClientEvent


def extras(value, path=""):
    """Paths of what a parsed message holds beyond its type."""
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from extras(one, f"{path}[{index}]")


class TypesTest(unittest.TestCase):
    def test_every_message_is_one_that_the_package_knows(self):
        build = pathlib.Path(os.environ["PARLEY_BUILD_DIR"])
        with tempfile.TemporaryDirectory() as folder:
            dump = pathlib.Path(folder) / "messages"
            subprocess.run([build / "bin" / "realtime_test"], check=True, timeout=100,
                           env=dict(os.environ, PARLEY_REALTIME_DUMP=str(dump)), stdout=subprocess.DEVNULL)
            messages = [json.loads(line) for line in dump.read_text().splitlines()]
        adapter = pydantic.TypeAdapter(RealtimeClientEvent)
        seen = collections.Counter()
        for message in messages:
            parsed = adapter.validate_python(message, strict=True)
            self.assertEqual(parsed.type, message["type"])
            self.assertEqual(list(extras(parsed)), [], message)
            seen[message["type"]] += 1
        print(dict(seen), file=sys.stderr)
        for kind in ("session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "response.create",
                     "response.cancel", "conversation.item.create", "conversation.item.delete", "input_audio_buffer.clear",
                     "conversation.item.truncate"):
            self.assertGreater(seen[kind], 0, kind)


if __name__ == "__main__":
    unittest.main(verbosity=2)
