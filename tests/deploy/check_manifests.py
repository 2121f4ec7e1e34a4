"""The Dockerfile, compose.yaml and k8s/base parse and name what exists: targets, binaries, ports, flags and variables that the
built binaries themselves know. Usage: check_manifests.py SOURCE_DIR BIN_DIR"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

SOURCE, BIN = sys.argv[1], sys.argv[2]
DOCKERFILE = os.path.join(SOURCE, "docker", "Dockerfile")
HELP = {}


def help_of(binary):
    if binary not in HELP:
        arguments = [os.path.join(BIN, binary)]
        arguments += ["start", "--help"] if binary == "parley-agent-server" else ["--help"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{binary} --help: {done.stderr}"
        HELP[binary] = done.stdout
    return HELP[binary]


def knows_flag(binary, flag):
    return re.search(rf"^\s+{re.escape(flag)}\b", help_of(binary), re.MULTILINE) is not None


def knows_variable(binary, variable):
    if variable in help_of(binary):  # settings that are no flags are printed as variables
        return True
    return knows_flag(binary, "--" + variable.removeprefix("PARLEY_").lower().replace("_", "-"))


def stages():
    with open(DOCKERFILE, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for part in re.split(r"^(?=FROM )", text, flags=re.MULTILINE):
        match = re.match(r"FROM (\S+) AS (\S+)", part)
        if match:
            found[match.group(2)] = (match.group(1), part)
    return found


def documents(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".yaml"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                for document in yaml.safe_load_all(file):
                    yield name, document


class DockerTest(unittest.TestCase):
    def test_hadolint(self):
        hadolint = os.path.join(os.path.dirname(sys.executable), "hadolint")
        done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_targets_copy_binaries_that_are_built(self):
        copied = set()
        for name, (base, text) in stages().items():
            self.assertTrue(base in stages() or base.startswith("debian:"), f"{name}: FROM {base}")
            for line in re.findall(r"^COPY --from=build (.*)$", text, re.MULTILINE):
                for source in line.split()[:-1]:
                    built = source.removeprefix("/src/build/release/")
                    self.assertNotEqual(built, source, f"{name} copies {source}, which no build makes")
                    copied.add(os.path.basename(source))
                    path = os.path.join(os.path.dirname(BIN), built)
                    self.assertTrue(os.access(path, os.X_OK), f"{name} copies {source}")
        services = {"parley-" + folder.replace("_", "-") for folder in os.listdir(os.path.join(SOURCE, "services"))
                    if os.path.isdir(os.path.join(SOURCE, "services", folder))}
        self.assertEqual(services - copied, set(), "services without an image")

    def test_an_image_has_the_libraries_that_its_binaries_link(self):
        def installed(name):
            """What a stage and those below it install."""
            base, part = stages()[name]
            return part + (installed(base) if base in stages() else "")

        looked_at = 0
        for name, (_, part) in stages().items():
            for binary in re.findall(r"bin/(parley[a-z-]*)", part):
                linked = subprocess.run(["ldd", os.path.join(BIN, binary)], capture_output=True, text=True, check=True).stdout
                for library in ("libpocketsphinx", "libflite", "libhiredis", "libwebsockets", "libcurl", "libgrpc++", "libseccomp", "libopus",
                                "libsndfile", "libwebrtc_audio_processing", "libnice", "libsrtp2", "libusrsctp", "libre2", "libyaml-cpp"):
                    if library + "." in linked:
                        looked_at += 1
                        self.assertIn(library.replace("_", "-"), installed(name), f"{name}: {binary} links {library}")
        self.assertGreater(looked_at, 60)
        for name in ("agent-registry", "agent-server"):
            self.assertNotIn("libnice", installed(name), "90 MB for WebRTC, which rooms alone speak")

    def test_compose_names_targets_and_settings_that_exist(self):
        with open(os.path.join(SOURCE, "docker", "compose.yaml"), encoding="utf-8") as file:
            compose = yaml.safe_load(file)
        for name, service in compose["services"].items():
            for neighbour in service.get("depends_on", []):
                self.assertIn(neighbour, compose["services"], name)
            if "build" not in service:
                continue
            self.assertIn(service["build"]["target"], stages(), name)
            self.assertTrue(os.path.exists(os.path.join(SOURCE, "docker", service["build"]["context"],
                                                        service["build"]["dockerfile"])))
            for variable in service["environment"]:
                users = [other for other in compose["services"] if "build" in compose["services"][other]
                         and knows_variable("parley-" + other, variable)]
                self.assertTrue(users, f"no service knows {variable}")
            for published in service.get("ports", []):
                self.assertTrue(published.startswith("127.0.0.1:"), f"{name} publishes {published} beyond loopback")


class KubernetesTest(unittest.TestCase):
    base = os.path.join(SOURCE, "k8s", "base")

    def deployments(self):
        for name, document in documents(self.base):
            if document.get("kind") == "Deployment":
                yield name, document["metadata"]["name"], document["spec"]["template"]["spec"]

    def test_every_service_has_a_deployment_and_a_service(self):
        folders = {folder.replace("_", "-") for folder in os.listdir(os.path.join(SOURCE, "services"))
                   if os.path.isdir(os.path.join(SOURCE, "services", folder))}
        for kind in ("Deployment", "Service"):
            named = {document["metadata"]["name"] for _, document in documents(self.base) if document.get("kind") == kind}
            self.assertEqual(folders - named, set(), f"services without a {kind}")

    def test_containers_name_real_binaries_flags_variables_and_ports(self):
        for file, name, pod in self.deployments():
            for container in pod["containers"]:
                binary = os.path.basename([part for part in container["command"] if "parley-" in part][0])
                self.assertEqual(binary, "parley-" + name, file)
                for argument in container.get("args", []):
                    if argument.startswith("--"):
                        self.assertTrue(knows_flag(binary, argument), f"{file}: {binary} has no {argument}")
                for variable in container["env"]:
                    if variable["name"].startswith("PARLEY_"):
                        self.assertTrue(knows_variable(binary, variable["name"]), f"{file}: {variable['name']}")
                help_text = help_of(binary)
                for port in container["ports"]:
                    number = port["containerPort"]
                    derived = number - 1000 if port["name"] in ("admin", "health-grpc") and number != 9080 else number
                    self.assertIn(str(derived), help_text, f"{file}: {binary} has no default port {number}")

    def test_ways_to_a_room_are_variables_that_the_binaries_have(self):
        sys.path.insert(0, os.path.join(SOURCE, "k8s"))
        import render  # pylint: disable=import-outside-toplevel
        nodes = {"networkPolicy": {"nodes": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}
        rtc = {"hostNetwork": True, "lastPort": 7889, "tcpPort": 7881, "ipv6": True, "stunServer": "192.0.2.1:3478",
               "turn": {"urls": ["turn:turn.example.com"], "secret": "coturn"}}
        objects = render.render({**nodes, "services": {"room-server": {"rtc": rtc}, "api-server": {"tlsSecret": "edge", "publicUrl": "wss://a"}}})
        seen = set()
        for thing in objects:
            name = thing["metadata"]["name"]
            if thing["kind"] == "Deployment" and name in ("room-server", "api-server"):
                for variable in thing["spec"]["template"]["spec"]["containers"][0]["env"]:
                    if variable["name"].startswith("PARLEY_"):
                        seen.add(variable["name"])
                        self.assertTrue(knows_variable("parley-" + name, variable["name"]), variable["name"])
        self.assertLessEqual({"PARLEY_RTC_UDP_PORT_LAST", "PARLEY_RTC_TCP_PORT", "PARLEY_RTC_ADDRESS", "PARLEY_RTC_STUN_SERVER",
                              "PARLEY_TURN_URLS", "PARLEY_TURN_SECRET_FILE", "PARLEY_TURN_TTL", "PARLEY_HTTP_KEY"}, seen)

    def test_providers_are_variables_that_the_gateways_have(self):
        sys.path.insert(0, os.path.join(SOURCE, "k8s"))
        import render  # pylint: disable=import-outside-toplevel
        provider = {"baseUrl": "https://a", "secret": "s"}
        objects = render.render({"services": {
            "stt-gateway": {"openai": provider, "deepgram": provider, "wyoming": {"address": "a:1"}},
            "tts-gateway": {"openai": provider, "wyoming": {"address": "a:1"}}, "llm-gateway": {"openai": provider}}})
        for thing in objects:
            name = thing["metadata"]["name"]
            if thing["kind"] != "Deployment" or not name.endswith("-gateway"):
                continue
            mounted = {v["name"] for v in thing["spec"]["template"]["spec"]["containers"][0]["env"]}
            for variable in mounted:
                self.assertTrue(not variable.startswith("PARLEY_") or knows_variable("parley-" + name, variable), f"{name}: {variable}")
            keys = set(re.findall(r"--([a-z-]+)-key-file\b", help_of("parley-" + name)))  # of every provider that it knows
            self.assertEqual({"PARLEY_" + k.upper().replace("-", "_") + "_KEY_FILE" for k in keys},
                             {v for v in mounted if v.endswith("_KEY_FILE")}, f"{name}: a provider's key that the chart cannot mount")

    def test_a_mounted_file_of_settings_is_read(self):
        sys.path.insert(0, os.path.join(SOURCE, "k8s"))
        import render  # pylint: disable=import-outside-toplevel
        objects = render.render({"services": {"room-server": {"config": {"room": {"max_rooms": "none"}}}}})
        (settings,) = [o["data"]["config.yaml"] for o in objects if o["kind"] == "ConfigMap"]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(settings)
            file.flush()
            done = subprocess.run([os.path.join(BIN, "parley-room-server"), "--dev"], env={**os.environ, "PARLEY_CONFIG": file.name},
                                  capture_output=True, text=True, timeout=20, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("room.max_rooms", done.stderr)
        self.assertIn(file.name, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
