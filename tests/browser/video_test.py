#!/usr/bin/env python3
"""Two browsers see each other's cameras, over each signalling path, in each codec that is carried; a narrow network gets the lower
layer."""
import os
import random
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pages  # noqa: E402
import people  # noqa: E402


def busy_film(path, width=640, height=360, pictures=12):
    """Pictures with so much in them that each layer takes all of its bit rate."""
    dice = random.Random(1)
    with open(path, "wb") as film:
        film.write(f"YUV4MPEG2 W{width} H{height} F20:1 Ip A1:1 C420jpeg\n".encode())
        for _ in range(pictures):
            rows = [bytes(v for v in dice.randbytes(width // 4) for _ in range(4)) for _ in range(height // 4)]
            film.write(b"FRAME\n" + b"".join(row * 4 for row in rows) + bytes([128]) * (width * height // 2))


class VideoTest(people.PeopleTest):
    def setUp(self):
        super().setUp()
        busy_film(f"{self.folder}/film.y4m")
        self.CHROMIUM = (f"--use-file-for-fake-video-capture={self.folder}/film.y4m",)

    def media_port(self):
        """The room server's UDP port, from what it says to a client."""
        return int(self.pages.do("ann", "port")["port"])

    def widths(self, seconds):
        """Of ann's pictures as bob sees them, looked up five times a second."""
        end, seen = time.monotonic() + seconds, []
        while time.monotonic() < end:
            seen.append(self.of("bob", "seen", "ann")["width"])
            time.sleep(0.2)
        return seen

    def test_two_browsers_see_each_other_and_the_network_chooses_the_layer(self):
        self.open("ann", "cinema")
        self.gate = pages.Gate(self.media_port())
        self.addCleanup(self.gate.close)
        self.open("bob", "cinema", gate=self.gate.port)
        self.pages.do("ann", "camera", {"on": True})
        self.pages.do("bob", "camera", {"on": True})
        self.grows("bob", "seen", "ann", "frames", 20, 30)
        self.grows("ann", "seen", "bob", "frames", 20, 30)
        high = self.until(20, "bob sees the higher layer", lambda: self.of("bob", "seen", "ann")["width"] == 640)
        print("the higher layer after", round(high, 1), "s:", self.of("bob", "seen", "ann"))
        seen = self.widths(5)
        self.assertGreater(seen.count(640), 0.8 * len(seen), f"nothing is lost, so it stays: {seen}")
        self.gate.rate = 300_000
        low = self.until(15, "the lower layer through the gate", lambda: self.of("bob", "seen", "ann")["width"] == 320)
        self.grows("bob", "seen", "ann", "frames", 20, 15)
        print("the lower layer after", round(low, 1), "s, datagrams lost:", self.gate.lost, self.of("bob", "seen", "ann"))
        seen = self.widths(5)
        self.assertGreater(seen.count(320), 0.5 * len(seen), f"tries of the higher one are short: {seen}")
        self.gate.rate = None
        back = self.until(10, "the higher layer again", lambda: self.of("bob", "seen", "ann")["width"] == 640)
        self.grows("bob", "seen", "ann", "frames", 20, 15)
        print("the higher layer again after", round(back, 1), "s:", self.of("bob", "seen", "ann"))
        seen = self.widths(4)
        self.assertGreater(seen.count(640), 0.8 * len(seen), f"and it stays: {seen}")

    def codec(self, single, asked, carried):
        room = f"{asked}-{single}"
        self.open("ann", room, single=single)
        if asked not in self.pages.do("ann", "codecs"):
            self.skipTest(f"this browser has no {asked}")
        self.open("bob", room, single=single)
        self.pages.do("ann", "camera", {"on": True, "codec": asked})
        self.grows("bob", "seen", "ann", "frames", 40, 30)
        seen = self.of("bob", "seen", "ann")
        print(f"asked for {asked}:", seen)
        self.assertEqual(seen["codec"].lower(), carried)

    def test_vp9_over_one_connection(self):
        self.codec("1", "vp9", "vp9")

    def test_vp9_over_two_connections(self):
        self.codec("0", "vp9", "vp9")

    def test_h264_over_one_connection(self):
        self.codec("1", "h264", "h264")

    def test_h264_over_two_connections(self):
        self.codec("0", "h264", "h264")

    def test_a_codec_that_is_not_carried(self):
        self.codec("0", "av1", "vp8")  # the client sends VP8 instead


if __name__ == "__main__":
    unittest.main(verbosity=2)
