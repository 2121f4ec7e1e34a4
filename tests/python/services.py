"""What tests of published clients share: services of their own, and tokens for them."""
import base64
import hashlib
import hmac
import json
import os
import subprocess
import threading
import time


def token(**grants):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    body = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"iss": "devkey", "sub": "python", "nbf": now - 1, "exp": now + 3600,
                                                              **grants})
    signature = hmac.new(b"secret", body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Service:
    """A service on free ports. `line` is what it logs when it serves, `field` the port in that line."""

    def __init__(self, build, name, line, field, *flags):
        self.process = subprocess.Popen(
            [str(build / "bin" / name), "--dev", "true", "--grpc-port", "0", "--admin-port", "0", *flags],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PARLEY_CLUSTER_KEY": "0123456789abcdef0123456789abcdef"})
        while True:
            text = self.process.stderr.readline()
            assert text, f"{name} did not start"
            if f'"msg":"{line}"' in text:
                break
        self.address = f"127.0.0.1:{json.loads(text)[field]}"
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
