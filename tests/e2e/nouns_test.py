#!/usr/bin/env python3
"""Every noun of the command line against a running `parley dev`."""
import base64
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402
from cluster import data  # noqa: E402


class NounsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        folder = pathlib.Path(cls.dev.folder.name)
        (folder / "mcp.yaml").write_text(
            f"kitchen: {{command: [python3, {cluster.SOURCE}/tests/component/mcp_server.py, stdio], environment: {{menu: soup}}}}\n")
        cls.dev.start("--recordings-folder", folder / "recordings", "--mcp-servers", folder / "mcp.yaml")

    @classmethod
    def tearDownClass(cls):
        code = cls.dev.stop()
        assert code == 0, f"parley dev ended with {code}:\n{cls.dev.log()[-3000:]}"

    def ok(self, *arguments, **options):
        result = self.dev.run(*arguments, **options)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stdout}\n{result.stderr}\n"
                                               f"{self.dev.log()[-2000:]}")
        return result

    def test_agents_are_versioned_listed_and_removed(self):
        path = pathlib.Path(self.dev.folder.name) / "pet.yaml"
        text = "id: pet\ngreeting: Woof.\nllm: [{engine: rules, rules: r}]\nrules: {r: [{otherwise: Woof.}]}\n"
        path.write_text(text)
        self.assertIn("valid", cluster.run("agents", "validate", path).stdout)
        self.assertIn("pet version 1", self.ok("agents", "apply", path).stdout)
        self.assertIn("(unchanged)", self.ok("agents", "apply", path).stdout)
        path.write_text(text.replace("Woof.", "Meow."))
        self.assertIn("pet version 2", self.ok("agents", "apply", path).stdout)
        self.assertIn("pet", self.ok("-q", "agents", "list").stdout.split())
        self.assertEqual(data(self.ok("agents", "get", "pet"))["version"], 2)
        self.ok("agents", "delete", "pet")
        self.assertEqual(self.dev.run("agents", "get", "pet").returncode, 3)

    def test_a_call_with_mcp_tools_is_recorded_and_replayed(self):
        folder = pathlib.Path(self.dev.folder.name)
        path = folder / "cook.yaml"
        path.write_text("""
id: cook
mcp_servers: [{name: kitchen, allowed_tools: [env]}]
llm: [{engine: rules, rules: r}]
rules: {r: [{when: "what is the {name:menu}", call: env, say: "Today {result}."}, {otherwise: "What?"}]}
session: {record: true}
""")
        self.ok("agents", "apply", path)
        self.ok("call", "--agent", "cook", "--text", "what is the menu", "--expect", "Today soup.")
        recordings = list((folder / "recordings").glob("*.jsonl"))
        self.assertEqual(len(recordings), 1)
        self.assertEqual(recordings[0].stat().st_mode & 0o777, 0o600)
        deadline = time.monotonic() + 10
        # Its last second is on its way.
        while "cut off" in (replay := cluster.run("replay", "--log", recordings[0])).stdout and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(replay.returncode, 0, replay.stdout + replay.stderr)
        self.assertIn("decisions, identical", replay.stdout)
        self.assertIn("Today soup.", replay.stdout)

    def test_what_is_used_is_added_up(self):
        self.ok("tts", "good day", "--out", pathlib.Path(self.dev.folder.name) / "day.wav")
        deadline = time.monotonic() + 10
        while not (usage := data(self.ok("--json", "usage")))["day"]["engines"].get("flite") and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertGreaterEqual(usage["day"]["engines"]["flite"]["ttsCharacters"], len("good day"))
        self.assertEqual((usage["project"], usage["caps"], usage["silentGateways"]), ("default", [], []))
        self.assertIn("flite", self.ok("usage").stdout)
        self.assertEqual(data(self.ok("--json", "usage", "--session", "AS_none"))["session"], {"engines": {}})

    def test_versions_are_deployed_by_share_and_rolled_back(self):
        path = pathlib.Path(self.dev.folder.name) / "shop.yaml"
        text = "id: shop\ngreeting: One.\nllm: [{engine: rules, rules: r}]\nrules: {r: [{otherwise: Yes.}]}\n"
        for greeting in ("One.", "Two.", "Three."):
            path.write_text(text.replace("One.", greeting))
            self.ok("agents", "apply", path)

        def shares():
            return [(v["version"], v["percent"]) for v in data(self.ok("--json", "agents", "versions", "shop"))]

        def served():
            made = data(self.ok("--json", "dispatch", "create", "--room", "shop-1", "--agent", "shop"))
            self.ok("dispatch", "delete", made["id"])
            return made["agentVersion"]

        self.assertEqual(shares(), [(3, 100), (2, 0), (1, 0)])
        self.assertIn("version 2: 100 %", self.ok("agents", "deploy", "shop", "--version", "2").stdout)
        self.assertEqual(served(), 2)
        self.ok("agents", "canary", "shop", "--percent", "30", "--sticky")
        self.assertEqual(shares(), [(3, 30), (2, 70), (1, 0)])
        self.ok("agents", "rollback", "shop")
        self.assertEqual(shares(), [(3, 0), (2, 100), (1, 0)])
        self.ok("agents", "deploy", "shop", "--follow")
        self.assertEqual(served(), 3)
        self.assertEqual(self.dev.run("agents", "deploy", "shop", "--version", "9").returncode, 3)
        self.assertEqual(self.dev.run("agents", "rollback", "nobody").returncode, 3)
        self.ok("agents", "delete", "shop")

    def test_dispatches_run_and_end(self):
        dispatch = data(self.ok("--json", "dispatch", "create", "--room", "lobby", "--agent", "front-desk"))
        self.assertRegex(dispatch["id"], "^AD_")
        listed = data(self.ok("--json", "dispatch", "list", "--room", "lobby"))
        self.assertEqual([d["id"] for d in listed], [dispatch["id"]])
        self.ok("dispatch", "delete", dispatch["id"])
        watched = [json.loads(line) for line in
                   self.ok("--json", "dispatch", "watch", dispatch["id"], timeout=30).stdout.splitlines()]
        self.assertEqual([watched[0]["type"], watched[-1]["type"]], ["dispatch_created", "dispatch_ended"])
        self.assertEqual((watched[-2]["type"], watched[-2]["reason"]), ("job_cancelled", "TERMINATED"))
        past = [json.loads(line) for line in
                self.ok("--json", "dispatch", "history", dispatch["id"]).stdout.splitlines()]
        self.assertEqual([event["type"] for event in past], [event["type"] for event in watched])
        rest = self.ok("--json", "dispatch", "history", "--room", "lobby", "--after", past[1]["position"])
        self.assertEqual([json.loads(line)["position"] for line in rest.stdout.splitlines()],
                         [event["position"] for event in past[2:]])

    def test_what_is_watched_arrives_as_it_happens(self):
        dispatch = data(self.ok("--json", "dispatch", "create", "--room", "later", "--agent", "nobody"))
        self.assertEqual(self.dev.run("dispatch", "watch", "AD_0010000000000000").returncode, 3)
        command = [cluster.PARLEY, "--json", "dispatch", "watch", dispatch["id"]]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE,
                              env=cluster.clean_environment({"PARLEY_SERVER": self.dev.url})) as watch:
            lines = [json.loads(watch.stdout.readline())["type"] for _ in range(2)]
            self.assertEqual(lines, ["dispatch_created", "job_pending"])
            self.ok("dispatch", "delete", dispatch["id"])
            rest = [json.loads(line)["type"] for line in watch.stdout]
        self.assertEqual((watch.returncode, rest), (0, ["job_cancelled", "dispatch_ended"]))

    def test_a_job_is_followed_to_its_end(self):
        dispatch = data(self.ok("--json", "dispatch", "create", "--room", "heard", "--agent", "front-desk"))
        job = dispatch["jobs"][0]["id"]
        follower = subprocess.Popen([cluster.PARLEY, "jobs", "logs", "-f", job], text=True, stdout=subprocess.PIPE,
                                    env=cluster.clean_environment({"PARLEY_SERVER": self.dev.url}))
        self.addCleanup(follower.kill)
        self.assertIn("job running", follower.stdout.readline())
        self.ok("jobs", "delete", job)
        rest, _ = follower.communicate(timeout=30)
        self.assertEqual(follower.returncode, 0)
        self.assertRegex(rest, "job ended.*reason=JOB_REASON_TERMINATED")
        self.assertEqual(self.dev.run("jobs", "logs", "AJ_000unknown").returncode, 3)

    def test_an_unknown_agent_waits_and_then_fails_visibly(self):
        dispatch = data(self.ok("--json", "dispatch", "create", "--room", "nowhere", "--agent", "nobody",
                                "--queue-deadline", "1s"))
        self.ok("dispatch", "watch", dispatch["id"], timeout=30)
        self.assertIn("FAILED/NO_WORKER_BEFORE_DEADLINE", self.ok("dispatch", "get", dispatch["id"]).stdout)

    def test_what_runs_is_listed(self):
        workers = data(self.ok("--json", "workers", "list"))
        self.assertEqual(len(workers), 1)
        for noun in (("rooms", "list"), ("sessions", "list", "--ended"), ("jobs", "list"), ("status",)):
            self.ok(*noun)
            json.loads(self.ok("--json", *noun).stdout)
        self.assertLessEqual({"rooms", "people", "agentsInRooms", "sessions"},
                             set(json.loads(self.ok("--json", "status").stdout)))

    def test_engines_can_be_tried_alone(self):
        spoken = pathlib.Path(self.dev.folder.name) / "spoken.wav"
        grammar = pathlib.Path(self.dev.folder.name) / "g.gram"
        grammar.write_text("#JSGF V1.0; grammar g; public <u> = how much is a (single | double) room;")
        self.ok("tts", "how much is a double room", "--voice", "rms", "--out", spoken)
        self.assertEqual(self.ok("stt", spoken, "--grammar", grammar).stdout.strip(), "how much is a double room")

    def test_livekit_variables_stand_in_for_our_own(self):
        env = {"PARLEY_SERVER": "", "LIVEKIT_URL": f"ws://127.0.0.1:{7880 + self.dev.offset}",
               "LIVEKIT_API_KEY": "devkey", "LIVEKIT_API_SECRET": "secret"}
        self.assertIn("front-desk", self.ok("-q", "agents", "list", env=env).stdout)
        wrong = self.dev.run("agents", "list", env={**env, "LIVEKIT_API_SECRET": "guessed"})
        self.assertEqual(wrong.returncode, 4)

    def test_tokens_say_what_they_allow(self):
        token = data(self.ok("--json", "token", "create", "--room", "lobby", "--agent", "front-desk"))["token"]
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        self.assertEqual(claims["video"], {"room": "lobby", "roomJoin": True})
        self.assertEqual(claims["roomConfig"]["agents"][0]["agentName"], "front-desk")
        printed = self.ok("token", "create", "--join", "--room", "lobby", "--identity", "ann", "--agent", "front-desk",
                          "--valid-for", "1h").stdout.splitlines()
        self.assertEqual(printed[0], "server URL: " + self.dev.url.replace("http", "ws"))
        self.assertRegex(printed[1], r"^token: [\w-]+\.[\w-]+\.[\w-]+$")
        body = printed[1].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        self.assertEqual((claims["sub"], claims["exp"] - claims["iat"]), ("ann", 3600))
        self.assertEqual(cluster.run("token", "create", "--join").returncode, 2)

    def test_the_description_is_served(self):
        with urllib.request.urlopen(self.dev.url + "/openapi.json", timeout=5) as answer:
            self.assertIn("/api/sessions", json.load(answer)["paths"])


class DataTest(unittest.TestCase):
    def test_what_is_registered_survives_a_restart_with_a_folder_of_its_own(self):
        dev = cluster.Dev()
        self.addCleanup(dev.close)
        data_dir = pathlib.Path(dev.folder.name) / "data"
        dev.start("--data-dir", data_dir)
        path = pathlib.Path(dev.folder.name) / "pet.yaml"
        path.write_text("id: pet\nllm: [{engine: rules, rules: r}]\nrules: {r: [{otherwise: Woof.}]}\n")
        self.assertEqual(dev.run("agents", "apply", path).returncode, 0)
        self.assertEqual(dev.stop(), 0)
        dev.start("--data-dir", data_dir)
        self.assertIn("pet", dev.run("-q", "agents", "list").stdout.split())
        self.assertEqual(dev.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
