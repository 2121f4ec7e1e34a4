#!/usr/bin/env python3
"""What the cluster says to input that is wrong: one line that names the cause, the right exit code, nothing lost."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request
import wave

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402
from cluster import BIN  # noqa: E402


def jwt(claims, secret="secret", algorithm="HS256"):
    """A token made by hand, so that a wrong one can be made too."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    text = part({"alg": algorithm, "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.new(secret.encode(), text, hashlib.sha256).digest() if algorithm == "HS256" else b""
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


ADMIN = {"iss": "devkey", "sub": "t", "exp": int(time.time()) + 600, "agent": {"admin": True},
         "video": {"roomCreate": True, "roomList": True}}


class BadInput(unittest.TestCase):
    """A cluster that must know the same agents afterwards as before."""

    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start()
        cls.before = cls.dev.run("-q", "agents", "list").stdout

    @classmethod
    def tearDownClass(cls):
        after = cls.dev.run("-q", "agents", "list").stdout
        assert after == cls.before, f"bad input changed what is stored: {cls.before!r} -> {after!r}"
        assert cls.dev.stop() == 0, cls.dev.log()[-3000:]

    def http(self, method, path, token=None, body=None):
        """(status, decoded answer) of one raw request."""
        request = urllib.request.Request(self.dev.url + path, method=method, data=body)
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def refused(self, code, text, *arguments, **options):
        result = self.dev.run(*arguments, **options)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        self.assertIn(text, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def file(self, name, content):
        path = pathlib.Path(self.dev.folder.name) / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


class BadInputTest(BadInput):
    def test_tokens(self):
        for name, token, text in (
                ("none", None, "token"),
                ("garbage", "x.y.z", ""),
                ("unsigned", jwt(ADMIN, algorithm="none"), ""),
                ("wrong secret", jwt(ADMIN, secret="guessed"), "signature"),
                ("foreign key", jwt({**ADMIN, "iss": "stranger"}), "not known"),
                ("expired", jwt({**ADMIN, "exp": int(time.time()) - 3600}), "expired"),
                ("participant", jwt({"iss": "devkey", "sub": "p", "exp": ADMIN["exp"],
                                     "video": {"roomJoin": True, "room": "r"}}), "agent.admin")):
            status, answer = self.http("GET", "/api/agents", token)
            self.assertEqual(status, 401, f"{name}: {answer}")
            self.assertEqual(answer["code"], "unauthenticated", name)
            self.assertIn(text.lower(), answer["msg"].lower(), name)
        self.assertEqual(self.http("GET", "/api/agents", jwt(ADMIN))[0], 200)

    def test_a_wrong_key_is_not_authorised(self):
        self.refused(4, "signature", "agents", "list",
                     env={"PARLEY_API_KEY": "devkey", "PARLEY_API_SECRET": "guessed"})

    def test_definitions_name_file_line_and_field(self):
        base = "id: x\nllm: [{engine: rules, rules: r}]\nrules: {r: [{otherwise: x}]}\n"
        for name, text, expected in (
                ("broken.yaml", base + "tools: [\n", "broken.yaml:"),
                ("unknown.yaml", base + "favourite_colour: red\n", "favourite_colour"),
                ("range.yaml", base + "tts: [{engine: flite, rate: 9}]\n", "rate"),
                ("id.yaml", base.replace("x", "Not An Id", 1), "id"),
                ("later.yaml", base + "vision: {enabled: true}\n", "vision"),
                ("inside.yaml", base + "tools: [{name: t, description: d, http: {url: \"http://169.254.169.254/\"}}]\n", "169.254"),
                ("bomb.yaml", "a: &a [x, x]\nb: &b [*a, *a]\n" + base, "anchors")):
            path = self.file(name, text)
            self.refused(1, expected, "agents", "apply", path)
            result = cluster.run("agents", "validate", path)
            self.assertEqual(result.returncode, 1, name)
            self.assertRegex(result.stderr, rf"{name}:\d+", name)

    def test_wav_files(self):
        def wav(name, seconds, tag=1):
            path = self.file(name, b"")
            with wave.open(str(path), "wb") as out:
                out.setnchannels(1)
                out.setsampwidth(2)
                out.setframerate(16000)
                out.writeframes(b"\0\0" * int(16000 * seconds))
            content = bytearray(path.read_bytes())
            content[20] = tag
            path.write_bytes(content)
            return path
        cut = self.file("cut.wav", wav("whole.wav", 1).read_bytes()[:5000])
        for path, code in ((wav("empty.wav", 0), 1), (wav("mp3.wav", 1, tag=0x55), 1), (cut, 1),
                           (self.file("text.wav", "hello"), 1), ("/no/such/file.wav", 3)):
            self.refused(code, str(path), "stt", path)
            self.refused(code, str(path), "call", "--agent", "front-desk", "--wav", path)

    def test_requests_that_are_too_large(self):
        token = jwt(ADMIN)
        create = {"room": "r", "agentName": "front-desk"}
        for body, text in (({**create, "room": "r" * 257}, "256"),
                           ({**create, "metadata": "m" * (513 << 10)}, "524288"),
                           ({**create, "agentName": "a" * 300}, "256"),
                           ({**create, "priority": 11}, "priority"),
                           ({**create, "colour": "red"}, "colour"),
                           ({**create, "restartPolicy": "SOMETIMES"}, "restart")):
            status, answer = self.http("POST", "/api/dispatches", token, json.dumps(body).encode())
            self.assertEqual(status, 400, answer)
            self.assertIn(text, answer["msg"])
        self.assertEqual(self.http("POST", "/api/dispatches", token, b"{\"room\": ")[0], 400)
        self.assertEqual(self.http("POST", "/api/dispatches", token, b"x" * (11 << 20))[0], 413)

    def test_what_does_not_exist(self):
        for arguments in (("agents", "get", "nobody"), ("agents", "delete", "nobody"), ("dispatch", "get", "AD_000000000000"),
                          ("jobs", "get", "AJ_000000000000"), ("sessions", "get", "AS_000000000000")):
            self.refused(3, "", *arguments)

    def test_an_agent_that_does_not_come_is_named_and_waited_for_no_longer(self):
        self.refused(5, "\"nobody\" did not come within 1s: its job is PENDING", "-q", "call", "--agent", "nobody",
                     "--text", "hello", "--wait", "1s")
        states = {d["agentName"]: d["state"] for d in
                  cluster.data(self.dev.run("--json", "dispatch", "list", "--ended"))}
        self.assertEqual(states["nobody"], "ENDED")

    def test_no_server(self):
        for arguments in (("agents", "list"), ("call", "--agent", "front-desk", "--text", "hello"), ("status",)):
            self.refused(5, "start one with `parley dev`", *arguments, env={"PARLEY_SERVER": "http://127.0.0.1:1"})

    def test_wrong_usage(self):
        for arguments in ((), ("agents",), ("agents", "paint"), ("dispatch", "create"), ("call", "--loudly")):
            self.assertEqual(cluster.run(*arguments).returncode, 2, arguments)
        self.refused(1, "telephony is not built", "call", "--to", "tel:+4912345")
        for words in ("--help",), ("dev", "--help"), ("call", "--help"), ("dispatch", "create", "--help"):
            result = cluster.run(*words)
            self.assertEqual((result.returncode, result.stderr), (0, ""))

    def service(self, name, *arguments, env=None):
        return subprocess.run([str(BIN / name), *arguments], capture_output=True, text=True, timeout=30,
                              env=cluster.clean_environment(env))

    def test_services_that_cannot_start_say_why_in_one_line(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            cases = (
                ("parley-tts-gateway", ("--dev", "--address", "0.0.0.0", "--grpc-port", "0"), "loopback"),
                ("parley-tts-gateway", ("--grpc-port", "0"), "keys"),
                ("parley-tts-gateway", ("--dev", "--grpc-port", port, "--admin-port", "0"), port),
                ("parley-tts-gateway", ("--dev", "--grpc-port", "x"), "grpc"),
                ("parley-tts-gateway", ("--dev", "--colour", "red"), "colour"))
            for name, arguments, text in cases:
                result = self.service(name, *arguments)
                self.assertIn(result.returncode, (1, 2), arguments)
                self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
                self.assertIn(text, result.stderr, arguments)

    def test_a_second_cluster_on_the_same_ports_says_which_port_is_taken(self):
        result = cluster.run("dev", "--port-offset", self.dev.offset, timeout=40)
        self.assertEqual(result.returncode, 1)
        self.assertIn("taken", result.stderr + result.stdout)
        self.assertEqual(self.dev.run("status").returncode, 0)


class ExplosiveInputTest(BadInput):
    def test_patterns_and_grammars_that_explode_are_refused(self):
        pattern = ("id: x\nllm: [{engine: rules, rules: r}]\n"
                   "rules: {r: [{when: \"%s\", say: x}, {otherwise: x}]}\n")
        self.refused(1, "when", "agents", "apply", self.file("pattern.yaml", pattern % ("(" * 2000 + ")" * 2000)))
        self.refused(1, "when", "agents", "apply", self.file("repeat.yaml", pattern % "((a{1000}){1000}){1000}"))
        spoken = pathlib.Path(self.dev.folder.name) / "yes.wav"
        self.dev.run("tts", "yes", "--out", spoken)
        doubling = "".join(f"<r{i}> = <r{i + 1}> <r{i + 1}>;\n" for i in range(40))
        for name, grammar in (
                ("doubling.gram", "#JSGF V1.0;\ngrammar g;\npublic <u> = <r0>;\n" + doubling + "<r40> = yes;\n"),
                ("word.gram", "#JSGF V1.0;\ngrammar g;\npublic <u> = xyzzyplugh;\n"),
                ("text.gram", "how much is a room"),
                ("large.gram", "#JSGF V1.0;\ngrammar g;\npublic <u> = " + " | ".join(["yes"] * 20_000) + ";\n")):
            result = self.dev.run("stt", spoken, "--grammar", self.file(name, grammar), timeout=30)
            self.assertNotEqual(result.returncode, 0, f"{name}: {result.stdout}")
            self.assertRegex(result.stderr, "(?i)grammar|memory|word|recogniser", name)
        self.assertEqual(self.dev.run("tts", "yes", "--out", spoken).returncode, 0)  # and everything lives on


if __name__ == "__main__":
    unittest.main(verbosity=2)
