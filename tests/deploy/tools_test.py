"""What operators would run over the manifests: kubeconform with the schemas of Kubernetes, KEDA and the Prometheus operator, and
kube-score. The tools are built from their modules by `go`, once for a build folder. Usage: tools_test.py SOURCE_DIR BUILD_DIR"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import kubernetes_validate
import yaml

SOURCE, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.path.insert(0, str(SOURCE / "k8s"))
import render  # noqa: E402

TOOLS = BUILD / "deploy" / "go"
RELEASE = "1.33.0"
PROGRAMS = {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
            "kube-score": "github.com/zegl/kube-score/cmd/kube-score@v1.20.0"}
DEFINITIONS = {"github.com/kedacore/keda/v2@v2.21.0": "config/crd/bases/keda.sh_scaledobjects.yaml",
               "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/"}
# Not kept: images are pinned by digest where it matters (image.digests), so pulling always only adds a way to fail; and a CPU
# limit would throttle what has to answer within 20 ms.
SCORE = ["--kubernetes-version", "v1.33", "--ignore-container-cpu-limit", "--ignore-test", "container-image-pull-policy"]
RELAY = {"services": {"room-server": {"rtc": {"turn": {"urls": ["turn:turn.example.com:3478"], "secret": "turn"}}}},
         "coturn": {"enabled": True, "replicas": 2, "tlsSecret": "tls", "allowedPeers": ["10.0.0.0-10.255.255.255"]}}


def go(*arguments):
    environment = {**os.environ, "GOBIN": str(TOOLS), "GOFLAGS": "-mod=mod"}
    return subprocess.run(["go", *arguments], env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True,
                          timeout=900, check=True).stdout


def closed(schema):
    """Objects whose fields are named take no others."""
    if isinstance(schema, dict):
        made = {k: closed(v) for k, v in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        return made
    return [closed(v) for v in schema] if isinstance(schema, list) else schema


class Loader(yaml.SafeLoader):
    """Takes the plain `=` that those files have."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def write_schemas(folder):
    package = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{RELEASE}-local-strict"
    for path in package.glob("*.json"):
        (folder / path.name).write_text(path.read_text().replace('"/api/_definitions.json', '"_definitions.json')
                                        .replace('"_definitions.json', f'"file://{folder}/_definitions.json'))
    for module, where in DEFINITIONS.items():
        root = pathlib.Path(json.loads(go("mod", "download", "-json", module))["Dir"]) / where
        for path in [root] if root.is_file() else sorted(root.glob("*.yaml")):
            crd = yaml.load(path.read_text(), Loader)["spec"]
            for version in crd["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"].update({"metadata": {"type": "object"}})
                name = f"{crd['names']['kind']}-{crd['group'].split('.')[0]}-{version['name']}.json".lower()
                (folder / name).write_text(json.dumps(schema))


@unittest.skipUnless(shutil.which("go"), "no Go here to build kubeconform and kube-score with")
class ToolsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for name, module in PROGRAMS.items():
            if not (TOOLS / name).exists():
                go("install", module)
        cls.folder = tempfile.TemporaryDirectory()
        cls.schemas = pathlib.Path(cls.folder.name)
        write_schemas(cls.schemas)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_tool(self, name, *arguments, objects):
        text = yaml.safe_dump_all(objects)
        return subprocess.run([TOOLS / name, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)

    def conform(self, objects):
        return self.run_tool("kubeconform", "-strict", "-summary", "-schema-location",
                             f"{self.schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", "-", objects=objects)

    def forms(self):
        everything = {"networkPolicy": {"enabled": True}, "priorityClasses": {"create": True}, "quota": {"enabled": True},
                      "monitoring": {"serviceMonitors": True, "rules": True, "dashboards": True}}
        yield "defaults", render.render()
        for name in render.OVERLAYS:
            yield name, render.render(render.values_of(name))
        yield "reach", render.render({**everything, "services": {"room-server": {"rtc": {"hostPort": True, "tcpPort": 7881, "ipv6": True}}},
                                      "ingress": {"host": "talk.example.com", "tlsSecret": "talk"}})
        yield "relay", render.render({**everything, **RELAY, "services": {**RELAY["services"], "llm-gateway": {"config": {"a": {}}}}})
        yield "hpa", render.render({**everything, "autoscaling": {"kind": "hpa"}})
        yield "keda", render.render({**everything, "autoscaling": {"kind": "keda"}})

    def test_kubeconform(self):
        for name, objects in self.forms():
            done = self.conform(objects)
            print(name, done.stdout.strip().splitlines()[-1])
            self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}")
            self.assertIn("Skipped: 0", done.stdout)

    def test_kubeconform_notices_wrong_fields_of_custom_resources(self):
        objects = [o for o in render.render({"autoscaling": {"kind": "keda"}}) if o["kind"] == "ScaledObject"]
        objects[0]["spec"]["minReplicasCount"] = 1
        self.assertNotEqual(self.conform(objects).returncode, 0)

    def test_kube_score(self):
        done = self.run_tool("kube-score", "score", *SCORE, "-o", "ci", "-", objects=render.render({**render.values_of("prod"), **RELAY}))
        complaints = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
        print(len(done.stdout.splitlines()), "checks of kube-score")
        self.assertEqual(complaints, [])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_kube_score_notices_a_pod_that_may_write_its_root(self):
        objects = render.render(render.values_of("prod"))
        deployment = next(o for o in objects if o["kind"] == "Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
        self.assertNotEqual(self.run_tool("kube-score", "score", *SCORE, "-", objects=objects).returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
