"""What the browser tests share: a server for their pages, Chromium, and a relay for its media that can be cut."""
import base64
import collections
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import queue
import select
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).parent
CLIENT = pathlib.Path(os.environ["PARLEY_BUILD_DIR"]) / "browser" / "livekit-client.umd.js"
E2EE_WORKER = CLIENT.parent / "package" / "dist" / "livekit-client.e2ee.worker.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Pages:
    """Serves `page` to any number of tabs, hears what they tell, and has them do things."""

    def __init__(self, page):
        self.events = []
        self.changed = threading.Condition()
        self.commands = {}
        self.last_id = 0
        self.over = False
        pages = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body=b"", kind="text/plain"):
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the browser is gone
                    self.wfile.write(body)

            def do_GET(self):
                url = urllib.parse.urlparse(self.path)
                if url.path == "/livekit-client.umd.js":
                    return self.answer(CLIENT.read_bytes(), "text/javascript")
                if url.path == "/e2ee-worker.js":
                    return self.answer(E2EE_WORKER.read_bytes(), "text/javascript")
                if url.path == "/next":
                    name = urllib.parse.parse_qs(url.query)["page"][0]
                    return self.answer(json.dumps(pages.next_command(name)).encode(), "application/json")
                return self.answer((HERE / page).read_bytes(), "text/html")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with pages.changed:
                    pages.events.append(json.loads(body))
                    pages.changed.notify_all()
                self.answer()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next_command(self, name):
        try:
            return self.queue_of(name).get(timeout=10)
        except queue.Empty:
            return {"command": "end" if self.over else ""}

    def queue_of(self, name):
        with self.changed:
            return self.commands.setdefault(name, queue.Queue())

    def begin(self, name, command, argument=None):
        with self.changed:
            self.last_id += 1
            number = self.last_id
        self.queue_of(name).put({"id": number, "command": command, "argument": argument})
        return number

    def do(self, name, command, argument=None, seconds=20):
        """What the page's command came to."""
        number = self.begin(name, command, argument)
        event = self.wait(lambda e: e["what"] == "done" and e["id"] == number, seconds, f"{name}: {command}")
        if "failed" in event:
            raise AssertionError(f"{name}: {command} failed: {event['failed']}\n{self.told()}")
        return event["result"]

    def mark(self):
        """For `since`: what comes from now on."""
        with self.changed:
            return len(self.events)

    def wait(self, matches, seconds, what, since=0):
        """The first event that matches."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for event in self.events[since:]:
                    if matches(event):
                        return event
                    if event["what"] == "error":
                        raise AssertionError(f"a page failed: {event['message']}\n{self.told()}")
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    raise AssertionError(f"not within {seconds} s: {what}\n{self.told()}")

    def told(self):
        return "\n".join(json.dumps(event) for event in self.events[-200:])

    def close(self):
        self.over = True
        for waiting in list(self.commands.values()):
            waiting.put({"command": "end"})
        self.server.shutdown()
        self.server.server_close()


class Gate:
    """A UDP relay on loopback between any clients and one server port; `open` can be set to False, and `rate` to the bits a
    second that it lets through to clients: what would wait for longer than 300 ms is lost."""

    def __init__(self, target):
        self.target = ("127.0.0.1", target)
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self.open = True
        self.passed = 0
        self.rate = None
        self.lost = 0
        self.stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        backs, clients = {}, {}  # by the client's address; by the socket towards the server
        waiting, free = collections.deque(), 0.0  # what the rate holds back; when it is through
        while not self.stopped:
            wait = max(waiting[0][0] - time.monotonic(), 0) if waiting else 0.2
            readable, _, _ = select.select([self.front, *clients], [], [], wait)
            while waiting and waiting[0][0] <= time.monotonic():
                _, late, sender = waiting.popleft()
                self.front.sendto(late, sender)
            for one in readable:
                datagram, sender = one.recvfrom(2048)
                if one is self.front:
                    if sender not in backs:
                        backs[sender] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        clients[backs[sender]] = sender
                    out, to = backs[sender], self.target
                else:
                    out, to = self.front, clients[one]
                if not self.open:
                    continue
                self.passed += 1
                if one is self.front or (not self.rate and not waiting):
                    out.sendto(datagram, to)
                    continue
                now = time.monotonic()
                free = max(free, now)
                if free - now > 0.3:
                    self.lost += 1
                    continue
                free += len(datagram) * 8 / self.rate if self.rate else 0
                waiting.append((free, datagram, to))
        for one in [self.front, *clients]:
            one.close()

    def close(self):
        self.stopped = True
        self.thread.join()


class Cluster:
    """A cluster of real processes without agents; `room_server`: more arguments of that one."""

    def __init__(self, *room_server):
        more = [one for argument in room_server for one in ("--argument=room-server:" + argument,)]
        self.process = subprocess.Popen(
            [os.path.join(os.environ["PARLEY_BIN_DIR"], "parley-test-cluster"), "--agent-servers", "0", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.where = json.loads(self.process.stdout.readline() or "{}")
        self.url = "ws://" + self.where["api-server"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def person(name, room):
    """A token for somebody in a room."""
    return token({"iss": "devkey", "sub": name, "nbf": int(time.time()) - 10, "exp": int(time.time()) + 600,
                  "video": {"roomJoin": True, "room": room, "canUpdateOwnMetadata": True}})


def token(claims):
    """Signed with the development key."""
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=")  # noqa: E731
    text = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
    return (text + b"." + encode(hmac.new(b"secret", text, hashlib.sha256).digest())).decode()


def browser(url, microphone, folder, *more):
    """Headless Chromium, its microphone fed from a file; nobody sleeps in the background. `more` arguments."""
    return subprocess.Popen(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
         "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
         "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
         "--disable-backgrounding-occluded-windows",
         "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}",
         "--allow-loopback-in-peer-connection", f"--user-data-dir={folder}/profile", *more, url],
        stdout=open(f"{folder}/chromium.log", "wb"), stderr=subprocess.STDOUT, env={**os.environ, "HOME": folder})
