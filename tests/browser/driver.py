"""Drives headless Chromium as a person would: its DevTools protocol over a pipe, keys and mouse, screenshots."""
import base64
import json
import os
import subprocess
import threading
import time

from pages import CHROMIUM


class Page:
    """One tab. Not thread-safe."""

    def __init__(self, folder, microphone):
        out_read, out_write = os.pipe()  # to the browser, as its descriptor 3
        in_read, in_write = os.pipe()    # from it, as its 4

        def descriptors():
            # Above both numbers first: either may be one of ours.
            high_in, high_out = os.dup2(out_read, 60), os.dup2(in_write, 61)
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        self.log = open(f"{folder}/chromium.log", "wb")
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--mute-audio", "--disable-dev-shm-usage", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
             f"--use-file-for-fake-audio-capture={microphone}%noloop", "--allow-loopback-in-peer-connection",
             "--autoplay-policy=no-user-gesture-required", "--window-size=1280,900",
             f"--user-data-dir={folder}/profile", "about:blank"],
            stdout=self.log, stderr=subprocess.STDOUT, close_fds=False, preexec_fn=descriptors,
            env={**os.environ, "HOME": str(folder)})
        os.close(out_read)
        os.close(in_write)
        self.out, self.into = os.fdopen(out_write, "wb", 0), os.fdopen(in_read, "rb")
        self.answers, self.changed, self.last = {}, threading.Condition(), 0
        self.errors = []
        threading.Thread(target=self.read, daemon=True).start()
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self.call(domain + ".enable")

    def read(self):
        rest = b""
        while True:
            piece = os.read(self.into.fileno(), 1 << 16)
            if not piece:
                return
            *messages, rest = (rest + piece).split(b"\0")
            for text in messages:
                message = json.loads(text)
                with self.changed:
                    if "id" in message:
                        self.answers[message["id"]] = message
                    elif message.get("method") == "Runtime.exceptionThrown":
                        self.errors.append(message["params"]["exceptionDetails"])
                    self.changed.notify_all()

    def call(self, method, **parameters):
        self.last += 1
        number = self.last
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.answers, 30):
                raise AssertionError(f"the browser does not answer {method}")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression, seconds):
        """Until the expression is true; answers its value."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.value(expression)
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {expression}\n{self.value('document.body.innerText')}\n"
                                     f"{self.errors[-3:]}")
            time.sleep(0.1)

    def key(self, name, code):
        for kind in ("rawKeyDown", "keyUp") if name != "Enter" else ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                      **({"text": "\r"} if name == "Enter" and kind == "keyDown" else {}))

    def tab(self):
        self.key("Tab", 9)

    def enter(self):
        self.key("Enter", 13)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        x, y = self.value(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
                          "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.log.close()
