"""The relay as the chart starts it: the arguments of its container, given to a real coturn under the container's user with a secret of
the test's own. Who has credentials of the room server's kind gets through to a room server, and to nobody else.
Usage: coturn_test.py SOURCE_DIR"""
import base64
import hashlib
import hmac
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(SOURCE / "k8s"))
import render  # noqa: E402

SECRET = "north"
COOKIE = 0x2112A442
ALLOCATE, PERMISSION, SEND = 0x0003, 0x0008, 0x0016
USERNAME, INTEGRITY, ERROR, PEER, DATA, REALM, NONCE, TRANSPORT = 0x06, 0x08, 0x09, 0x12, 0x13, 0x14, 0x15, 0x19


def own_address():
    """An address of this machine other than loopback, which coturn relays to for nobody; None: there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def peer(address, port):
    packed = struct.unpack("!I", socket.inet_aton(address))[0] ^ COOKIE
    return attribute(PEER, struct.pack("!BBHI", 0, 1, port ^ (COOKIE >> 16), packed))


class Client:
    """So much of TURN as a browser needs to reach a room server."""

    def __init__(self, address, port, user, password):
        self.socket = socket.create_connection((address, port), timeout=5)
        self.user, self.password, self.realm, self.nonce = user, password, b"", b""

    def close(self):
        self.socket.close()

    def message(self, method, attributes, signed):
        body = b"".join(attributes)
        if signed:
            body += attribute(USERNAME, self.user) + attribute(REALM, self.realm) + attribute(NONCE, self.nonce)
        head = struct.pack("!HHI", method, len(body) + (24 if signed else 0), COOKIE) + os.urandom(12)
        if not signed:
            return head + body
        key = hashlib.md5(b":".join((self.user, self.realm, self.password))).digest()
        return head + body + attribute(INTEGRITY, hmac.new(key, head + body, hashlib.sha1).digest())

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the relay closed")
            data += more
        return data

    def ask(self, method, *attributes):
        """The error code of the answer, 0 for success."""
        self.socket.sendall(self.message(method, attributes, bool(self.nonce)))
        _, size = struct.unpack("!HH", self.read(20)[:4])
        body, found, at = self.read(size), {}, 0
        while at < size:
            kind, length = struct.unpack_from("!HH", body, at)
            found[kind] = body[at + 4:at + 4 + length]
            at += 4 + length + -length % 4
        self.realm, self.nonce = found.get(REALM, self.realm), found.get(NONCE, self.nonce)
        return found[ERROR][2] * 100 + found[ERROR][3] if ERROR in found else 0

    def allocate(self):
        """With the relay's nonce, which it says in its first refusal."""
        udp = attribute(TRANSPORT, bytes([17, 0, 0, 0]))
        return self.ask(ALLOCATE, udp) and self.ask(ALLOCATE, udp)


@unittest.skipUnless(shutil.which("turnserver"), "no coturn here")
@unittest.skipUnless(own_address(), "no address but loopback here")
class CoturnTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.address = own_address()
        with socket.create_server((cls.address, 0)) as free:
            cls.port = free.getsockname()[1]
        objects = render.render({
            "coturn": {"enabled": True, "allowedPeers": [cls.address]},
            "services": {"room-server": {"rtc": {"turn": {"urls": ["turn:turn.example.com:3478"], "secret": "turn"}}}}})
        (pod,) = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "coturn"]
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        os.chmod(folder.name, 0o777)
        values = {"$(POD_IP)": cls.address, "$(TURN_SECRET)": SECRET, "=3478": f"={cls.port}", "/tmp/": folder.name + "/"}
        (cls.container,) = pod["containers"]
        arguments = cls.container["args"]
        for name, value in values.items():
            assert any(name in argument for argument in arguments), name
            arguments = [argument.replace(name, value) for argument in arguments]
        user = pod["securityContext"]["runAsUser"] if os.getuid() == 0 else None
        cls.log = open(f"{folder.name}/log", "w+b")
        cls.addClassCleanup(cls.log.close)
        cls.coturn = subprocess.Popen(["turnserver", *arguments], user=user, group=user, extra_groups=[] if user else None,
                                      cwd="/", stdout=cls.log, stderr=subprocess.STDOUT)
        cls.addClassCleanup(cls.end)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((cls.address, cls.port), timeout=1).close()
                return
            except OSError:
                assert cls.coturn.poll() is None and time.monotonic() < deadline, cls.said()
                time.sleep(0.05)

    @classmethod
    def end(cls):
        cls.coturn.terminate()
        cls.coturn.wait(10)

    @classmethod
    def said(cls):
        cls.log.seek(0)
        return cls.log.read().decode(errors="replace")

    def client(self, secret=SECRET, life=600):
        user = f"{int(time.time()) + life}:ann".encode()
        client = Client(self.address, self.port, user, base64.b64encode(hmac.new(secret.encode(), user, hashlib.sha1).digest()))
        self.addCleanup(client.close)
        return client

    def test_it_says_that_it_is_ready(self):
        command = [part.replace("3478", str(self.port)) for part in self.container["readinessProbe"]["exec"]["command"]]
        done = subprocess.run(command, env={**os.environ, "POD_IP": self.address}, capture_output=True, timeout=10, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_a_room_server_is_reached_through_it(self):
        room = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(room.close)
        room.bind((self.address, 0))
        room.settimeout(5)
        client, where = self.client(), peer(self.address, room.getsockname()[1])
        self.assertEqual(client.allocate(), 0, self.said())
        self.assertEqual(client.ask(PERMISSION, where), 0, self.said())
        client.socket.sendall(client.message(SEND, [where, attribute(DATA, b"hello, room")], False))
        data, relay = room.recvfrom(100)
        self.assertEqual((data, relay[0]), (b"hello, room", self.address))
        self.assertTrue(49152 <= relay[1] <= 50175, relay)

    def test_nobody_else_is(self):
        client = self.client()
        self.assertEqual(client.allocate(), 0, self.said())
        for address in ("10.96.0.1", "169.254.169.254", "127.0.0.1", "198.51.100.1"):
            self.assertEqual(client.ask(PERMISSION, peer(address, 443)), 403, address)

    def test_credentials_of_another_secret_or_of_yesterday_are_refused(self):
        self.assertEqual(self.client("south").allocate(), 401)
        self.assertEqual(self.client(life=-86400).allocate(), 401)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
