"""Two people in one room, each in a browser of its own: what tests of their media share."""
import contextlib
import os
import pathlib
import shutil
import tempfile
import time
import unittest
import urllib.parse
import wave

import pages


def tone(path):
    """A second of a voice's loudness, so that something is heard."""
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(48000)
        wav.writeframes(b"".join(int(9000 * ((i // 120) % 2 * 2 - 1)).to_bytes(2, "little", signed=True)
                                 for i in range(48000)))


@unittest.skipUnless(pages.CHROMIUM, "no chromium here")
class PeopleTest(unittest.TestCase):
    ROOM_SERVER = ()  # more arguments
    CHROMIUM = ()

    @classmethod
    def setUpClass(cls):
        cls.cluster = pages.Cluster(*cls.ROOM_SERVER)
        cls.addClassCleanup(cls.cluster.close)

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.pages = pages.Pages("room.html")
        self.addCleanup(self.pages.close)
        self.browsers = []
        tone(f"{self.folder}/microphone.wav")

    def open(self, name, room, **query):
        """A browser for `name`, who joins."""
        folder = f"{self.folder}/{name}"
        os.mkdir(folder)
        url = f"http://127.0.0.1:{self.pages.port}/?" + urllib.parse.urlencode(
            {"name": name, "single": "1", "url": self.cluster.url, "token": pages.person(name, room), **query})
        browser = pages.browser(url, f"{self.folder}/microphone.wav", folder, *self.CHROMIUM)

        def end():
            browser.kill()
            browser.wait()
        self.addCleanup(end)
        try:
            self.pages.wait(lambda e: e["page"] == name and e["what"] == "ready", 40, f"{name} is there")
            self.pages.do(name, "join", seconds=40)
        except AssertionError as error:
            log = pathlib.Path(folder, "chromium.log").read_text(errors="replace")[-1500:]
            raise AssertionError(f"{error}\n--- chromium\n{log}") from None

    def of(self, page, what, identity):
        """What `page` says of `identity`: "heard" or "seen"."""
        return self.pages.do(page, what).get(identity, {})

    def until(self, seconds, what, matches):
        """Waits for `matches()`; how long it took."""
        begin = time.monotonic()
        while True:
            with contextlib.suppress(KeyError):
                if matches():
                    return time.monotonic() - begin
            self.assertLess(time.monotonic(), begin + seconds, f"not within {seconds} s: {what}\n{self.pages.told()}")
            time.sleep(0.2)

    def grows(self, page, what, identity, field, by, seconds=15):
        first = self.of(page, what, identity).get(field, 0)
        self.until(seconds, f"{page}: {what} of {identity}: {field} + {by}",
                   lambda: self.of(page, what, identity).get(field, 0) >= first + by)
