#!/usr/bin/env python3
"""End to end through `parley dev`: calls by voice, by file, in writing and on the console."""
import json
import os
import pathlib
import struct
import sys
import unittest
import wave

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402
from cluster import data  # noqa: E402

SOUNDS = pathlib.Path("/usr/share/sounds/alsa")


class CallsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start()

    @classmethod
    def tearDownClass(cls):
        code = cls.dev.stop()
        assert code == 0, f"parley dev ended with {code}:\n{cls.dev.log()[-3000:]}"

    def ok(self, *arguments, **options):
        result = self.dev.run(*arguments, **options)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stdout}\n{result.stderr}\n"
                                               f"{self.dev.log()[-2000:]}")
        return result

    def test_a_spoken_question_is_understood_looked_up_and_answered_aloud(self):
        recording = pathlib.Path(self.dev.folder.name) / "call.wav"
        answer = data(self.ok("--json", "call", "--agent", "front-desk", "--say", "how much is a single room",
                              "--out", recording, "--expect", "single room is 80 euros", "--expect-tool"))
        self.assertEqual(answer["greeting"], "Good day, how can I help?")
        turn = answer["turns"][0]
        self.assertEqual(turn["heard"], "how much is a single room")
        self.assertLess(turn["latencyMs"], 3000)
        print("call:", json.dumps(turn))
        with wave.open(str(recording)) as wav:
            self.assertEqual((wav.getnchannels(), wav.getsampwidth(), wav.getframerate()), (2, 2, 48000))
            frames = wav.readframes(wav.getnframes())
        samples = struct.unpack(f"<{len(frames) // 2}h", frames)
        for side, name in ((samples[0::2], "caller"), (samples[1::2], "agent")):
            loud = sum(1 for s in side if abs(s) > 1000)
            self.assertGreater(loud, 4800, f"the {name}'s side is silent")

    def test_a_person_is_understood(self):
        answer = data(self.ok("--json", "call", "--agent", "speaker-check", "--wav", SOUNDS / "Front_Left.wav",
                              "--expect", "front left"))
        print("person:", json.dumps(answer["turns"]))

    def test_written_turns_keep_their_conversation(self):
        result = self.ok("call", "--agent", "front-desk", "--text", "hello", "--text", "what does a suite cost",
                         "--expect", "suite room is 250 euros")
        self.assertIn("answers after", result.stdout)

    def test_a_written_call_that_disappoints_fails(self):
        for arguments, text in ((("--expect", "the moon"), "never said \"the moon\""),
                                (("--expect-tool",), "called no tool")):
            result = self.dev.run("-q", "call", "--agent", "hello", "--text", "yes", *arguments)
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            self.assertIn(text, result.stderr)

    def test_the_console_reads_lines(self):
        result = self.ok("console", "front-desk", stdin="how much is a double room\n")
        self.assertIn("120 euros", result.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
