#!/usr/bin/env python3
"""The React page of docs/migrate-from-livekit.md, word for word but for the address: bundled, opened in Chromium, and in a room with its
agent, against `parley dev`."""
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
import wave

SOURCE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["PARLEY_BUILD_DIR"])
sys.path[:0] = [str(SOURCE / "tests/e2e"), str(SOURCE / "tests/browser")]
import cluster  # noqa: E402
from pages import CHROMIUM, browser, token  # noqa: E402

BLOCK = re.compile(r"<!-- run by tests/livekit/migrate_react_test\.py -->\n```jsx\n(.*?)```", re.S)
ENTRY = """
import { createRoot } from "react-dom/client";
import { App } from "./App.jsx";
createRoot(document.getElementById("root")).render(<App />);
addEventListener("unhandledrejection", (event) => tell("error: " + event.reason));
function tell(text) { fetch("/told", { method: "POST", body: text }); }
setInterval(() => tell(document.body.innerText), 200);
"""


class Site:
    """The page and its script; what the page shows is in `shown`."""

    def __init__(self, script):
        self.shown = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body, kind):
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if self.path == "/app.js":
                    return self.answer(script, "text/javascript")
                self.answer(b'<div id="root"></div><script src="/app.js"></script>', "text/html")

            def do_POST(self):
                site.shown.append(self.rfile.read(int(self.headers["content-length"])).decode())
                self.answer(b"", "text/plain")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@unittest.skipUnless(CHROMIUM, "no chromium here")
class ReactMove(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.dev = cluster.Dev()
        self.addCleanup(self.dev.close)
        self.dev.start()

    def bundle(self):
        block = BLOCK.search((SOURCE / "docs/migrate-from-livekit.md").read_text()).group(1)
        self.assertIn("http://127.0.0.1:7880", block)
        folder = pathlib.Path(self.folder)
        (folder / "App.jsx").write_text(block.replace("http://127.0.0.1:7880", f"http://127.0.0.1:{7880 + self.dev.offset}"))
        (folder / "entry.jsx").write_text(ENTRY)
        (folder / "node_modules").symlink_to(BUILD / "livekit/node_modules")
        built = subprocess.run([folder / "node_modules/.bin/esbuild", "entry.jsx", "--bundle", "--jsx=automatic", "--outfile=app.js"],
                               cwd=folder, capture_output=True, text=True, timeout=60)
        self.assertEqual(built.returncode, 0, built.stderr)
        return (folder / "app.js").read_bytes()

    def dispatches(self):
        bearer = token({"iss": "devkey", "exp": int(time.time()) + 600, "video": {"roomList": True}})
        request = urllib.request.Request(self.dev.url + "/api/dispatches", headers={"authorization": f"Bearer {bearer}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["dispatches"]

    def test_a_page_moves(self):
        site = Site(self.bundle())
        self.addCleanup(site.close)
        silence = f"{self.folder}/silence.wav"
        with wave.open(silence, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(48000)
            wav.writeframes(bytes(2 * 48000))
        chromium = browser(site.url, silence, self.folder)

        def end():
            chromium.kill()
            chromium.wait()
        self.addCleanup(end)
        wanted = re.compile(r"The agent is (listening|speaking)\.")
        deadline = time.monotonic() + 60
        while not any(wanted.search(text) for text in site.shown):
            if time.monotonic() > deadline:
                log = pathlib.Path(self.folder, "chromium.log").read_text(errors="replace")[-3000:]
                self.fail(f"no agent came: {list(dict.fromkeys(site.shown))}\n--- chromium\n{log}\n--- cluster\n{self.dev.log()[-5000:]}")
            time.sleep(0.1)
        print("the page showed", list(dict.fromkeys(text.strip() for text in site.shown)))
        made = self.dispatches()
        self.assertEqual([(one["agentName"], one["metadata"]) for one in made], [("front-desk", '{"table": 4}')])


if __name__ == "__main__":
    unittest.main(verbosity=2)
