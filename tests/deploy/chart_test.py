"""The chart k8s/chart, rendered in all its forms: Kubernetes' own schemas take it, kustomize makes the same of it, and it keeps
our rules (restricted pods, who may speak to whom, grace periods longer than drains). Usage: chart_test.py SOURCE_DIR"""
import copy
import functools
import json
import logging
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import helm_python
import kubernetes_validate
import kubernetes_validate.utils
import yaml

kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)  # megabytes for each object
SOURCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(SOURCE / "k8s"))
import render  # noqa: E402

OLDEST, NEWEST = "1.30", "1.37"
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}  # their schemas: tools_test.py
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
EVERYTHING = {"namespace": {"create": True}, "priorityClasses": {"create": True}, "quota": {"enabled": True},
              "networkPolicy": {"enabled": True}, "monitoring": {"serviceMonitors": True, "rules": True, "dashboards": True}}
OPENAI = {"baseUrl": "https://models.example/v1", "secret": "provider", "key": "api-key"}
POOL = {"name": "concierge", "pool": "concierge", "image": "example/concierge:1", "command": ["/app/concierge", "start"], "replicas": 0,
        "slots": 10, "flags": {}, "safeToEvict": True,
        "autoscaling": {"min": 1, "max": 9, "utilisation": 50, "up": {"percent": 50, "pods": 1, "periodSeconds": 30},
                        "down": {"windowSeconds": 0, "percent": 10, "pods": 1, "periodSeconds": 30}},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}}
FORMS = {
    "defaults": {},
    "dev": render.values_of("dev"),
    "prod": render.values_of("prod"),
    "everything": {**EVERYTHING, "autoscaling": {"kind": "hpa"}},
    "keda": {**EVERYTHING, "autoscaling": {"kind": "keda"}},
    "sentinel": {**EVERYTHING, "redis": {"mode": "sentinel", "sentinels": ["a:26379", "b:26379", "c:26379"],
                                         "sentinelPasswordSecret": {"name": "s", "key": "p"}, "passwordSecret": {"name": "r", "key": "p"}}},
    "digests": {"image": {"registry": "registry.example", "digests": {"api-server": "sha256:" + "a" * 64}},
                "preStop": {"mode": "exec", "seconds": 10}, "imagePullSecrets": [{"name": "pull"}]},
    "providers": {**EVERYTHING, "services": {
        "stt-gateway": {"openai": OPENAI, "deepgram": {"baseUrl": "wss://ears.example/v1", "secret": "ears", "key": "token"},
                        "wyoming": {"address": "whisper.speech:10300", "peers": [{"namespaceSelector": {"matchLabels": {"name": "speech"}}}]}},
        "tts-gateway": {"openai": OPENAI, "wyoming": {"address": "piper.speech:10200"}}, "llm-gateway": {"openai": OPENAI}}},
    "own settings": {
        "address": "::",
        "services": {"room-server": {"config": {"room": {"presets_file": "/etc/parley-config/presets.json"}}, "files": {"presets.json": "{}"}},
                     "llm-gateway": {"config": {"log": {"level": "debug"}}}},
        "agentServers": [{**POOL, "safeToEvict": False, "env": [{"name": "CRM_TOKEN", "valueFrom": {"secretKeyRef": {"name": "crm", "key": "t"}}}],
                          "volumes": [{"name": "model", "configMap": {"name": "silero"}}],
                          "volumeMounts": [{"name": "model", "mountPath": "/model", "readOnly": True}]}]},
    "relay": {**EVERYTHING, "coturn": {"enabled": True, "replicas": 2, "tlsSecret": "turn-tls", "allowedPeers": ["10.244.0.0-10.244.255.255"]},
              "services": {"room-server": {"rtc": {"turn": {"urls": ["turn:turn.example.com:3478?transport=udp"], "secret": "turn"}}}}},
    "own program": {"agentServers": [POOL], "autoscaling": {"kind": "hpa"}, "maxCallSeconds": 600},
    "no pause": {"preStop": {"seconds": 0}},
    "attach": {**EVERYTHING, "services": {"api-server": {"attach": ["calls-example", "other.cloud"]}}},
    "reach": {**EVERYTHING, "services": {"room-server": {"rtc": {
        "tcpPort": 7881, "hostPort": True, "ipv6": True, "stunServer": "[2001:db8::5]:3478",
        "turn": {"urls": ["turn:turn.example.com:3478?transport=udp", "turns:turn.example.com:5349"], "secret": "coturn"}}}},
        "ingress": {"host": "talk.example.com", "className": "nginx", "tlsSecret": "talk", "annotations": {"a.example/b": "3600"}}},
    "host network": {**EVERYTHING, "networkPolicy": {"enabled": True, "nodes": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}, "services": {
        "room-server": {"rtc": {"hostNetwork": True, "lastPort": 7889}}, "api-server": {"tlsSecret": "edge"}}},
    "tls and tracing": {**EVERYTHING, "tls": {"enabled": True, "existingSecret": "certificates"},
                        "tracing": {"endpoint": "http://collector.telemetry:4318", "namespace": "telemetry"}},
}
RENDERED = {name: render.render(values) for name, values in FORMS.items()}


def of_kind(objects, *kinds):
    return [o for o in objects if o["kind"] in kinds]


def by_name(objects):
    return {o["metadata"]["name"]: o for o in objects}


def pods(objects):
    """(name, labels, pod spec) of everything that makes pods."""
    for thing in of_kind(objects, "Deployment", "StatefulSet"):
        template = thing["spec"]["template"]
        yield thing["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def services(objects):
    """The same of our own programs."""
    return (pod for pod in pods(objects) if pod[0] not in ("redis", "coturn"))


def selects(selector, labels):
    """Does a label selector fit?"""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for term in selector.get("matchExpressions", []):
        assert term["operator"] == "In", term
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True


def admits(rules, side, labels, port):
    """Does a list of NetworkPolicy rules let a pod of this namespace with `labels` through on `port`?"""
    for rule in rules:
        if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
            continue
        if side not in rule:
            return True
        if any("podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
               for peer in rule[side]):
            return True
    return False


class RenderingTest(unittest.TestCase):
    def test_other_livekit_servers_are_named_by_their_secrets(self):
        objects = RENDERED["attach"]
        specs = {name: spec for name, _, spec in pods(objects)}
        spec = specs["api-server"]
        container = spec["containers"][0]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        self.assertEqual(env["PARLEY_ATTACH_FILES"],
                         "/etc/parley-attach/calls-example/attach.yaml,/etc/parley-attach/other.cloud/attach.yaml")
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        secrets = {volume["secret"]["secretName"]: mounts[volume["name"]] for volume in spec["volumes"]
                   if volume["name"].startswith("attach-")}
        self.assertEqual(secrets, {"calls-example": "/etc/parley-attach/calls-example", "other.cloud": "/etc/parley-attach/other.cloud"})
        self.assertNotIn("PARLEY_ATTACH_FILES", json.dumps(specs["room-server"]))
        policies = by_name(of_kind(objects, "NetworkPolicy"))
        for name in ("api-server", "room-server"):  # who registers, and who joins
            self.assertIn("0.0.0.0/0", json.dumps(policies[name]["spec"]["egress"]))
            self.assertNotIn("0.0.0.0/0", json.dumps(by_name(of_kind(RENDERED["everything"], "NetworkPolicy"))[name]["spec"]["egress"]))

    def test_committed_manifests_are_what_the_chart_renders(self):
        files = render.rendered()
        self.assertEqual(render.stale_dashboards() + render.differences(render.K8S, files), [], "run scripts/render-k8s")

    def test_a_changed_file_is_noticed(self):
        files = render.rendered()
        with tempfile.TemporaryDirectory() as folder:
            for top in ("base", "overlays"):
                shutil.copytree(render.K8S / top, pathlib.Path(folder) / top)
            changed = pathlib.Path(folder) / "base" / "redis.yaml"
            changed.write_text(changed.read_text() + "# by hand\n")
            (pathlib.Path(folder) / "base" / "extra.yaml").write_text("{}\n")
            self.assertEqual(render.differences(pathlib.Path(folder), files), [
                "k8s/base/extra.yaml is not rendered from the chart", "k8s/base/redis.yaml differs from what the chart renders"])

    def test_kustomize_makes_the_same_of_base_and_overlays(self):
        for folder, form in (("base", "defaults"), ("overlays/dev", "dev"), ("overlays/prod", "prod")):
            done = subprocess.run([KUBECTL, "kustomize", str(render.K8S / folder)], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            made = {render.key(o): o for o in yaml.load_all(done.stdout, Loader=render.LOADER)}
            wanted = {render.key(o): o for o in RENDERED[form]}
            self.assertEqual(set(made), set(wanted), folder)
            for key, thing in wanted.items():
                self.assertEqual(made[key], thing, f"{folder}: {key}")

    def test_the_linter_of_helm_has_no_complaint(self):
        found = helm_python.lint(str(render.CHART))
        messages = found.get("messages", found) if isinstance(found, dict) else found
        self.assertEqual([m for m in messages if m["severity"] > 1], [])  # 1: it would like an icon

    def test_unknown_and_absurd_values_are_refused(self):
        for bad in ({"maxCalSeconds": 5}, {"maxCallSeconds": 5}, {"services": {"stt-gatway": {}}}, {"redis": {"mode": "cluster"}},
                    {"services": {"api-server": {"resources": {"limits": {"memory": "much"}}}}},
                    {"podSecurity": {"runAsUser": 0}}, {"agentServers": [{"name": "x"}]}, {"redis": {"password": "secret"}},
                    {"image": {"digests": {"api-server": "latest"}}}, {"preStop": {"mode": "native", "seconds": "5"}},
                    *({"services": {"room-server": {"rtc": rtc}}} for rtc in (
                        {"port": 0}, {"tcpPort": 70000}, {"announce": ["rooms.example.com"]}, {"stunServer": "stun.example.com:3478"},
                        {"turn": {"urls": ["http://x"]}}, {"turn": {"password": "p"}}, {"turn": {"ttl": "12"}})),
                    {"address": "10.0.0.1"}, {"coturn": {"relayPorts": {"first": 80}}}, {"services": {"api-server": {"files": {"config.yaml": ""}}}},
                    {"services": {"api-server": {"env": [{"value": "nameless"}]}}},
                    {"ingress": {"host": "two words"}}, {"networkPolicy": {"nodes": ["10.0.0.0/8"]}}):
            with self.assertRaises(helm_python.HelmError, msg=str(bad)):
                render.render(bad)
        for bad in ({"redis": {"tls": {"enabled": True}}}, {"redis": {"mode": "sentinel"}},
                    {"redis": {"mode": "sentinel", "sentinels": ["a:1"], "tls": {"enabled": True}}},
                    *({"services": {"room-server": {"rtc": rtc}}, **EVERYTHING} for rtc in (
                        {"hostPort": True, "hostNetwork": True}, {"lastPort": 7890}, {"hostNetwork": True},
                        {"turn": {"urls": ["turn:turn.example.com"]}})),
                    {"services": {"room-server": {"rtc": {"hostNetwork": True, "lastPort": 7000}}}}, {"ingress": {"host": "a.example"}},
                    {"services": {"tts-gateway": {"deepgram": OPENAI}}}, {"services": {"api-server": {"openai": OPENAI}}},
                    {"services": {"llm-gateway": {"wyoming": {"address": "a:1"}}}}, {"coturn": {"enabled": True}},
                    {**FORMS["relay"], "coturn": {"enabled": True}}):
            with self.assertRaises(helm_python.HelmRenderError, msg=str(bad)):
                render.render(bad)


class SchemaTest(unittest.TestCase):
    def test_oldest_and_newest_kubernetes_take_every_form(self):
        seen = set()
        for form, objects in RENDERED.items():
            for thing in objects:
                text = json.dumps(thing)
                if thing["kind"] in CUSTOM or text in seen:
                    continue
                seen.add(text)
                for version in (OLDEST, NEWEST):
                    try:
                        kubernetes_validate.validate(thing, version, strict=True)
                    except kubernetes_validate.ValidationError as error:
                        self.fail(f"{form}, {version}: {render.key(thing)}: {error.message}")

    def test_a_wrong_field_is_noticed(self):
        thing = copy.deepcopy(of_kind(RENDERED["defaults"], "Deployment")[0])
        thing["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(thing, NEWEST, strict=True)


class RulesTest(unittest.TestCase):
    def each(self):
        yield from RENDERED.values()

    def test_pods_are_restricted(self):
        for objects in self.each():
            for name, _, spec in pods(objects):
                self.assertTrue(spec["securityContext"]["runAsNonRoot"], name)
                self.assertGreaterEqual(spec["securityContext"]["runAsUser"], 10000, name)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, name)
                asked = {"hostNetwork"} if objects is RENDERED["host network"] and name == "room-server" else set()
                self.assertEqual({"hostNetwork", "hostPID", "hostIPC"} & set(spec), asked, name)
                for volume in spec.get("volumes", []):
                    self.assertTrue({"secret", "emptyDir", "configMap"} & set(volume), name)
                    self.assertIn("sizeLimit", volume.get("emptyDir", {"sizeLimit": 0}), name)
                for container in spec["containers"] + spec.get("initContainers", []):
                    security = container["securityContext"]
                    self.assertEqual((security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"], security["capabilities"]),
                                     (False, True, {"drop": ["ALL"]}), name)
                    self.assertIn("memory", container["resources"]["limits"], name)
                    self.assertNotIn("cpu", container["resources"]["limits"], f"{name}: throttling breaks 20 ms frames")
                    self.assertNotRegex(container["image"], r":latest$|^[^:]*$", name)

    def test_no_secret_stands_in_a_manifest(self):
        for objects in self.each():
            self.assertEqual(of_kind(objects, "Secret"), [])
            for name, _, spec in pods(objects):
                for container in spec["containers"]:
                    for variable in container.get("env", []):
                        if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "API_KEY", "OPENAI_KEY")):
                            self.assertTrue("secretKeyRef" in variable.get("valueFrom", {}) or variable["name"].endswith(("_KEY_FILE", "_SECRET_FILE")),
                                            f"{name}: {variable}")

    def test_only_brokers_have_a_token_and_may_only_patch_pods(self):
        for objects in self.each():
            accounts = by_name(of_kind(objects, "ServiceAccount"))
            for name, _, spec in pods(objects):
                mounted = name == "dispatch-broker"
                self.assertEqual(accounts[spec["serviceAccountName"]]["automountServiceAccountToken"], mounted, name)
                self.assertEqual(spec["automountServiceAccountToken"], mounted, name)
            (role,) = of_kind(objects, "Role")
            self.assertEqual(role["rules"], [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}])
            (binding,) = of_kind(objects, "RoleBinding")
            self.assertEqual([s["name"] for s in binding["subjects"]], ["dispatch-broker"])
        without = render.render({"podDeletionCost": False})
        self.assertEqual(of_kind(without, "Role", "RoleBinding", "ClusterRole"), [])
        self.assertFalse(any(spec["automountServiceAccountToken"] for _, _, spec in pods(without)))

    def test_the_grace_period_holds_pause_and_drain(self):
        for objects in self.each():
            for name, _, spec in services(objects):
                container = spec["containers"][0]
                drain = int(container["args"][container["args"].index("--drain") + 1].removesuffix("s"))
                stop = container.get("lifecycle", {}).get("preStop", {})
                pause = stop["sleep"]["seconds"] if "sleep" in stop else int(stop["exec"]["command"][1]) if stop else 0
                self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], drain + pause + 20, name)
        spec = dict((n, s) for n, _, s in pods(RENDERED["prod"]))["agent-server"]
        self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], 3 * 3600)

    def test_probes_are_three_different_questions_over_grpc(self):
        for form, objects in RENDERED.items():
            for name, _, spec in services(objects):
                container = spec["containers"][0]
                ports = [p["containerPort"] for p in container["ports"]]
                if form == "tls and tracing" and name != "agent-server":  # whose gRPC health port stays plain
                    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
                    self.assertEqual([a["path"] for a in asked.values()], ["/healthz", "/healthz", "/readyz"], name)
                    self.assertTrue({a["port"] for a in asked.values()} <= set(ports), name)
                    continue
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertIn(container[probe]["grpc"]["port"], ports, f"{name}: {probe}")
                self.assertEqual(container["readinessProbe"]["grpc"]["service"], "ready", name)
                self.assertNotIn("service", container["livenessProbe"]["grpc"], name)
                lenient = container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
                self.assertGreaterEqual(lenient, 60, name)

    def test_updates_start_new_pods_before_old_ones_go(self):
        for objects in self.each():
            for thing in of_kind(objects, "Deployment"):
                update = thing["spec"]["strategy"]["rollingUpdate"]
                self.assertEqual(update["maxUnavailable"], 0, thing["metadata"]["name"])
                self.assertNotIn(update["maxSurge"], (0, "0%"), thing["metadata"]["name"])

    def test_selectors_find_pods_and_ports(self):
        for objects in self.each():
            found = list(pods(objects))
            for thing in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
                name, spec = thing["metadata"]["name"], thing["spec"]
                selector = {"matchLabels": spec["selector"]} if thing["kind"] == "Service" else spec.get("selector", spec.get("podSelector"))
                chosen = [p for p in found if selects(selector, p[1])]
                self.assertEqual(len(chosen), len(found) if name == "default-deny" else 1, f"{thing['kind']} {name}")
                if thing["kind"] == "Service":
                    ports = {p["name"] for c in chosen[0][2]["containers"] for p in c["ports"]}
                    self.assertLessEqual({p["targetPort"] for p in spec["ports"]}, ports, name)
                    self.assertTrue(name in ("api-server", "coturn") or spec["clusterIP"] == "None", f"{name}: gRPC balances over a headless service")

    def test_what_scales_by_itself_has_no_replicas_and_one_scaler(self):
        for objects in self.each():
            workloads = by_name(of_kind(objects, "Deployment"))
            targets = [o["spec"]["scaleTargetRef"]["name"] for o in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")]
            self.assertEqual(len(targets), len(set(targets)))
            for name, thing in workloads.items():
                self.assertEqual("replicas" in thing["spec"], name not in targets, name)
            budgets = by_name(of_kind(objects, "PodDisruptionBudget"))
            for name, thing in workloads.items():
                if name in targets or thing["spec"]["replicas"] > 1:
                    self.assertIn(name, budgets)

    def test_scaling_is_quick_up_and_slow_down(self):
        for form in ("prod", "everything", "keda", "own program"):
            for thing in of_kind(RENDERED[form], "HorizontalPodAutoscaler", "ScaledObject"):
                spec = thing["spec"]
                behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
                self.assertEqual(behavior.get("scaleUp", {}).get("stabilizationWindowSeconds", 0), 0)
                self.assertTrue(behavior["scaleDown"]["policies"], thing["metadata"]["name"])
                if form != "own program":
                    self.assertGreaterEqual(behavior["scaleDown"]["stabilizationWindowSeconds"], 300, thing["metadata"]["name"])

    def test_external_metrics_are_known_to_the_adapter(self):
        adapter = yaml.safe_load((render.CHART / "files" / "prometheus-adapter.yaml").read_text())
        known = {rule.get("name", {}).get("as", rule["seriesQuery"]) for rule in adapter["rules"]["external"]}
        used = {m["external"]["metric"]["name"] for form in RENDERED.values() for o in of_kind(form, "HorizontalPodAutoscaler")
                for m in o["spec"]["metrics"] if m["type"] == "External"}
        self.assertEqual(used, known)

    def test_network_policies_let_through_what_the_services_call(self):
        # Replicas are called by the addresses that they tell themselves, which no manifest names: brokers ask each other for logs
        # and bring fences to rooms, tts gateways borrow recordings.
        by_address = {("dispatch-broker", "dispatch-broker", 7100), ("dispatch-broker", "room-server", 7105), ("tts-gateway", "tts-gateway", 7103)}
        for form in ("prod", "everything", "sentinel", "keda", "relay"):
            policies = by_name(of_kind(RENDERED[form], "NetworkPolicy"))
            labels = {name: l for name, l, _ in pods(RENDERED[form])}
            edges = set(by_address)
            for name, _, spec in pods(RENDERED[form]):
                for variable in spec["containers"][0].get("env", []):
                    target, _, port = variable.get("value", "").partition(":")
                    if target in labels:
                        edges.add((name, target, int(port)))
            self.assertGreaterEqual(len(edges), 14, edges)
            for caller, target, port in edges:
                self.assertTrue(admits(policies[caller]["spec"]["egress"], "to", labels[target], port), f"{caller} may not call {target}")
                self.assertTrue(admits(policies[target]["spec"]["ingress"], "from", labels[caller], port), f"{target} refuses {caller}")
            self.assertFalse(admits(policies["agent-registry"]["spec"]["ingress"], "from", labels["agent-server"], 7101))
            self.assertFalse(admits(policies["llm-gateway"]["spec"]["egress"], "to", labels["dispatch-broker"], 7100))
            self.assertEqual(set(policies), set(labels) | {"default-deny"})
        narrow = render.render({**EVERYTHING, "networkPolicy": {"enabled": True, "mediaFrom": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}})
        rooms = by_name(of_kind(narrow, "NetworkPolicy"))["room-server"]["spec"]["ingress"]
        for name, labels, _ in pods(narrow):
            self.assertEqual(admits(rooms, "from", labels, 7105), name in ("api-server", "dispatch-broker", "agent-server"), name)

    def test_redis_over_tls_goes_through_a_sidecar_that_checks_the_server(self):
        objects = RENDERED["prod"]
        config = by_name(of_kind(objects, "ConfigMap"))["redis-tls"]["data"]["stunnel.conf"]
        for line in ("verifyChain = yes", "checkHost = redis.example.internal", "accept = 127.0.0.1:6379"):
            self.assertIn(line, config)
        users = [n for n, _, spec in pods(objects) if spec.get("initContainers")]
        self.assertEqual(sorted(users), ["agent-registry", "dispatch-broker", "llm-gateway", "room-server", "stt-gateway", "tts-gateway"])

    def test_media_of_browsers_reaches_room_servers(self):
        def media(rtc, **more):
            objects = render.render({"services": {"room-server": {"rtc": rtc}}, **EVERYTHING, **more})
            (spec,) = [s for n, _, s in pods(objects) if n == "room-server"]
            container = spec["containers"][0]
            ports = {p["name"]: p for p in container["ports"] if p["name"].startswith("rtc")}
            told = {v["name"]: v.get("value") or v["valueFrom"]["fieldRef"]["fieldPath"] for v in container["env"]
                    if v["name"].startswith(("PARLEY_RTC", "PARLEY_TURN"))}
            (policy,) = [p for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "room-server"]
            opened = [(p["protocol"], p["port"], p.get("endPort")) for rule in policy["spec"]["ingress"] for p in rule["ports"]
                      if p["port"] not in (7105, 8105)]
            (namespace,) = of_kind(objects, "Namespace")
            return ports, told, opened, namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]

        ports, told, opened, level = media({})
        self.assertEqual(ports, {"rtc": {"name": "rtc", "containerPort": 7882, "protocol": "UDP"}})
        self.assertEqual(told, {"PARLEY_RTC_UDP_PORT": "7882", "PARLEY_RTC_ANNOUNCE": "status.podIP"})
        self.assertEqual((opened, level), ([("UDP", 7882, None)], "restricted"))

        ports, told, opened, level = media({"port": 7890, "tcpPort": 7891, "hostPort": True})
        self.assertEqual([(p["containerPort"], p["hostPort"]) for p in ports.values()], [(7890, 7890), (7891, 7891)])
        self.assertEqual(told, {"PARLEY_RTC_UDP_PORT": "7890", "PARLEY_RTC_TCP_PORT": "7891", "PARLEY_RTC_ANNOUNCE": "status.hostIP"})
        self.assertEqual((opened, level), ([("UDP", 7890, None), ("TCP", 7891, None)], "privileged"))

        _, told, _, _ = media({"hostPort": True, "announce": ["203.0.113.7:5000", "2001:db8::7"]})
        self.assertEqual(told["PARLEY_RTC_ANNOUNCE"], "203.0.113.7:5000,2001:db8::7")

        for more, told_addresses in (({}, "status.podIPs"), ({"hostPort": True}, "status.hostIPs")):
            _, told, _, _ = media({"ipv6": True, **more})
            self.assertEqual((told["PARLEY_RTC_ADDRESS"], told["PARLEY_RTC_ANNOUNCE"]), ("::", told_addresses))

        nodes = {"networkPolicy": {"enabled": True, "nodes": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}}
        ports, told, opened, level = media({"hostNetwork": True}, **nodes)
        self.assertEqual((list(ports), told["PARLEY_RTC_ANNOUNCE"], level), (["rtc"], "status.hostIP", "privileged"))
        self.assertNotIn("hostPort", ports["rtc"])
        ports, told, opened, _ = media({"hostNetwork": True, "lastPort": 7889}, **nodes)
        self.assertEqual((ports, told["PARLEY_RTC_UDP_PORT_LAST"], opened), ({}, "7889", [("UDP", 7882, 7889)]))

    def test_relays_are_told_with_a_secret_that_no_manifest_holds(self):
        objects = RENDERED["reach"]
        (spec,) = [s for n, _, s in pods(objects) if n == "room-server"]
        container = spec["containers"][0]
        told = {v["name"]: v.get("value") for v in container["env"]}
        self.assertEqual(told["PARLEY_TURN_URLS"], "turn:turn.example.com:3478?transport=udp,turns:turn.example.com:5349")
        self.assertEqual((told["PARLEY_TURN_SECRET_FILE"], told["PARLEY_TURN_TTL"]), ("/etc/parley-turn/static-auth-secret", "12h"))
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "turn"]
        (volume,) = [v for v in spec["volumes"] if v["name"] == "turn"]
        self.assertEqual((mount["mountPath"], mount["readOnly"], volume["secret"]["secretName"]), ("/etc/parley-turn", True, "coturn"))
        egress = by_name(of_kind(objects, "NetworkPolicy"))["room-server"]["spec"]["egress"]
        self.assertIn({"to": [{"ipBlock": {"cidr": "2001:db8::5/128"}}], "ports": [{"port": 3478, "protocol": "UDP"}]}, egress)
        plain = render.render({"services": {"room-server": {"rtc": {"turn": {"urls": ["stun:stun.example.com:3478"]}}}}})
        (spec,) = [s for n, _, s in pods(plain) if n == "room-server"]
        self.assertNotIn("parley-turn", json.dumps(spec))

    def test_providers_have_their_keys_from_secrets(self):
        specs = {n: s for n, _, s in pods(RENDERED["providers"])}
        wanted = {"stt-gateway": {"openai": "provider", "deepgram": "ears"}, "tts-gateway": {"openai": "provider"},
                  "llm-gateway": {"openai": "provider"}}
        for name, spec in specs.items():
            mounts = {m["mountPath"]: m["name"] for m in spec["containers"][0].get("volumeMounts", [])}
            volumes = {v["name"]: v for v in spec.get("volumes", [])}
            told = {v["name"]: v.get("value", "") for v in spec["containers"][0].get("env", [])}
            found = {}
            for variable, path in told.items():
                if variable.endswith("_KEY_FILE") and "provider" in path:
                    folder, _, key = path.rpartition("/")
                    engine = folder.rpartition("/")[2]
                    self.assertEqual(variable, f"PARLEY_{name[:3].upper()}_{engine.upper()}_KEY_FILE")
                    self.assertIn(key, ("api-key", "token"))
                    found[engine] = volumes[mounts[folder]]["secret"]["secretName"]
                    self.assertIn("://", told[variable.replace("_KEY_FILE", "_BASE_URL")])
            self.assertEqual(found, wanted.get(name, {}), name)
        self.assertEqual({v["name"]: v.get("value") for v in specs["stt-gateway"]["containers"][0]["env"]}["PARLEY_STT_WYOMING_ADDRESS"],
                         "whisper.speech:10300")
        policies = by_name(of_kind(RENDERED["providers"], "NetworkPolicy"))
        self.assertIn({"ports": [{"port": 10300, "protocol": "TCP"}], "to": [{"namespaceSelector": {"matchLabels": {"name": "speech"}}}]},
                      policies["stt-gateway"]["spec"]["egress"])
        self.assertIn({"ports": [{"port": 10200, "protocol": "TCP"}]}, policies["tts-gateway"]["spec"]["egress"])

    def test_own_settings_are_mounted_and_roll_out(self):
        objects = RENDERED["own settings"]
        maps = by_name(of_kind(objects, "ConfigMap"))
        self.assertEqual(yaml.safe_load(maps["room-server-config"]["data"]["config.yaml"]),
                         {"room": {"presets_file": "/etc/parley-config/presets.json"}})
        self.assertEqual(maps["room-server-config"]["data"]["presets.json"], "{}")
        templates = {o["metadata"]["name"]: o["spec"]["template"] for o in of_kind(objects, "Deployment")}
        sums = {}
        for name, template in templates.items():
            container = template["spec"]["containers"][0]
            told = {v["name"]: v.get("value") for v in container["env"]}
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            configured = f"{name}-config" in maps
            self.assertEqual(configured, name in ("room-server", "llm-gateway"))
            self.assertEqual(told.get("PARLEY_CONFIG"), "/etc/parley-config/config.yaml" if configured else None, name)
            self.assertEqual(mounts.get("config"), "/etc/parley-config" if configured else None, name)
            annotations = template["metadata"].get("annotations", {})
            self.assertEqual("checksum/config" in annotations, configured, name)
            if configured:
                sums[name] = annotations["checksum/config"]
            self.assertEqual(container["args"][:2], ["--address", "::"], name)
        self.assertEqual(templates["room-server"]["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"], "true")
        changed = copy.deepcopy(FORMS["own settings"])
        changed["services"]["room-server"]["files"]["presets.json"] = "[]"
        again = {o["metadata"]["name"]: o["spec"]["template"]["metadata"].get("annotations", {}) for o in of_kind(render.render(changed), "Deployment")}
        self.assertNotEqual(again["room-server"]["checksum/config"], sums["room-server"])
        self.assertEqual(again["llm-gateway"]["checksum/config"], sums["llm-gateway"])
        spec = templates["concierge"]["spec"]
        self.assertIn({"name": "CRM_TOKEN", "valueFrom": {"secretKeyRef": {"name": "crm", "key": "t"}}}, spec["containers"][0]["env"])
        self.assertIn({"name": "model", "mountPath": "/model", "readOnly": True}, spec["containers"][0]["volumeMounts"])
        self.assertIn({"name": "model", "configMap": {"name": "silero"}}, spec["volumes"])

    def test_replicas_tell_their_own_address_by_host_alone(self):
        for form in ("defaults", "own settings"):
            for name, _, spec in services(RENDERED[form]):
                for variable in spec["containers"][0]["env"]:
                    self.assertNotIn("$(", variable.get("value", ""), f"{name}: an IPv6 address before a port needs brackets")
        told = {(n, v["name"]) for n, _, s in services(RENDERED["defaults"]) for v in s["containers"][0]["env"]
                if v.get("valueFrom") == {"fieldRef": {"fieldPath": "status.podIP"}} and "RTC" not in v["name"]}
        self.assertEqual(told, {("room-server", "PARLEY_MEDIA_URL"), ("dispatch-broker", "PARLEY_BROKER_PEER_ADDRESS"),
                                ("tts-gateway", "PARLEY_TTS_PEER_ADDRESS")})

    def test_a_relay_serves_room_servers_alone(self):
        objects = RENDERED["relay"]
        (deployment,) = [o for o in of_kind(objects, "Deployment") if o["metadata"]["name"] == "coturn"]
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        for argument in ("--use-auth-secret", "--static-auth-secret=$(TURN_SECRET)", "--denied-peer-ip=0.0.0.0-255.255.255.255",
                         "--allowed-peer-ip=10.244.0.0-10.244.255.255", "--no-tcp-relay", "--no-cli", "--no-multicast-peers",
                         "--tls-listening-port=5349"):
            self.assertIn(argument, container["args"])
        secret = {v["name"]: v.get("valueFrom", {}) for v in container["env"]}["TURN_SECRET"]["secretKeyRef"]
        rooms = {n: s for n, _, s in pods(objects)}["room-server"]
        (volume,) = [v for v in rooms["volumes"] if v["name"] == "turn"]
        self.assertEqual((secret["name"], secret["key"]), (volume["secret"]["secretName"], "static-auth-secret"))
        policies = by_name(of_kind(objects, "NetworkPolicy"))
        labels = {n: l for n, l, _ in pods(objects)}
        relay, room = policies["coturn"]["spec"], policies["room-server"]["spec"]
        self.assertEqual([rule["ports"] for rule in relay["egress"]], [[{"port": 7882, "protocol": "UDP"}]])
        self.assertEqual([n for n, l in labels.items() if admits(relay["egress"], "to", l, 7882)], ["room-server"])
        self.assertTrue(admits(room["ingress"], "from", labels["coturn"], 7882))
        self.assertTrue(admits(room["egress"], "to", labels["coturn"], 49152))
        self.assertTrue(admits(relay["ingress"], "from", labels["room-server"], 49152))
        self.assertFalse(admits(relay["ingress"], "from", labels["agent-server"], 49152))
        service = by_name(of_kind(objects, "Service"))["coturn"]["spec"]
        self.assertEqual((service["type"], [(p["port"], p.get("protocol", "TCP")) for p in service["ports"]]),
                         ("LoadBalancer", [(3478, "UDP"), (3478, "TCP"), (443, "TCP")]))
        nodes = {"networkPolicy": {"enabled": True, "nodes": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}}
        turn = FORMS["relay"]["services"]["room-server"]["rtc"]["turn"]
        at_nodes = render.render({**FORMS["relay"], **nodes, "services": {"room-server": {"rtc": {"turn": turn, "hostPort": True}}}})
        self.assertIn({"ipBlock": {"cidr": "10.1.0.0/16"}}, by_name(of_kind(at_nodes, "NetworkPolicy"))["coturn"]["spec"]["egress"][0]["to"])
        self.assertNotIn("coturn", {o["metadata"]["name"] for form in ("defaults", "prod", "everything") for o in RENDERED[form]})

    def test_helm_can_test_what_it_installed(self):
        for form in ("defaults", "prod", "everything", "sentinel", "tls and tracing", "relay"):
            hooks, objects = render.render(FORMS[form], hooks=True), RENDERED[form]
            self.assertFalse({render.key(o) for o in hooks} & {render.key(o) for o in objects}, "applied without Helm, too")
            for thing in hooks:
                kubernetes_validate.validate(thing, OLDEST, strict=True)
                kubernetes_validate.validate(thing, NEWEST, strict=True)
            (pod,) = of_kind(hooks, "Pod")
            spec, labels = pod["spec"], pod["metadata"]["labels"]
            (container,) = spec["containers"]
            self.assertEqual(container["args"], ["--server", "http://api-server:8080", "doctor"])
            self.assertEqual((spec["restartPolicy"], spec["securityContext"]["runAsNonRoot"], spec["automountServiceAccountToken"]),
                             ("Never", True, False))
            self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
            told = {v["name"] for v in container["env"]}
            self.assertLessEqual({"PARLEY_KEYS_FILE", "PARLEY_ROOMS_ADDRESS", "PARLEY_STT_ADDRESS"}, told)
            self.assertTrue({"PARLEY_REDIS_ADDRESS", "PARLEY_REDIS_SENTINELS"} & told)
            self.assertEqual("PARLEY_TLS_CERTIFICATE" in told, form == "tls and tracing")
            policies = by_name(of_kind(objects, "NetworkPolicy"))
            self.assertEqual(len(of_kind(hooks, "NetworkPolicy")), 1 if policies else 0)
            for name, policy in policies.items():
                served = {"agent-registry": (7101, 8101), "dispatch-broker": (7100, 8100), "room-server": (7105, 8105),
                          "api-server": (8080, 9080), "redis": (6379,)}.get(name, ())
                for port in served:
                    self.assertTrue(admits(policy["spec"]["ingress"], "from", labels, port), f"{form}: {name} {port}")

    def test_policies_know_a_room_server_on_the_hosts_network_by_its_node(self):
        objects = RENDERED["host network"]
        (spec,) = [s for n, _, s in pods(objects) if n == "room-server"]
        self.assertEqual((spec["hostNetwork"], spec["dnsPolicy"]), (True, "ClusterFirstWithHostNet"))
        policies = by_name(of_kind(objects, "NetworkPolicy"))
        node = {"ipBlock": {"cidr": "10.1.0.0/16"}}

        def ports(name, side, direction):
            rules = policies[name]["spec"].get(direction, [])
            return {p["port"] for rule in rules if node in rule.get(side, []) for p in rule["ports"]}
        self.assertEqual({n: ports(n, "to", "egress") for n in policies if ports(n, "to", "egress")},
                         {"api-server": {7105}, "agent-server": {7105}, "dispatch-broker": {7105}})
        self.assertEqual({n: ports(n, "from", "ingress") for n in policies if ports(n, "from", "ingress")},
                         {"dispatch-broker": {7100}, "redis": {6379}})
        self.assertNotIn("10.1.0.0", json.dumps(RENDERED["everything"]))

    def test_signalling_has_tls_from_an_ingress_or_from_the_server_itself(self):
        (ingress,) = of_kind(RENDERED["reach"], "Ingress")
        spec = ingress["spec"]
        self.assertEqual(spec["tls"], [{"hosts": ["talk.example.com"], "secretName": "talk"}])
        (path,) = spec["rules"][0]["http"]["paths"]
        service = by_name(of_kind(RENDERED["reach"], "Service"))[path["backend"]["service"]["name"]]
        self.assertIn(path["backend"]["service"]["port"]["name"], [p["name"] for p in service["spec"]["ports"]])
        self.assertEqual((spec["ingressClassName"], ingress["metadata"]["annotations"]), ("nginx", {"a.example/b": "3600"}))
        self.assertEqual(of_kind(RENDERED["everything"], "Ingress"), [])

        def edge(form):
            (pod,) = [s for n, _, s in pods(RENDERED[form]) if n == "api-server"]
            return {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}, pod
        told, _ = edge("reach")
        self.assertEqual(told["PARLEY_PUBLIC_URL"], "wss://talk.example.com")
        self.assertNotIn("PARLEY_HTTP_CERTIFICATE", told)
        told, pod = edge("host network")
        self.assertEqual((told["PARLEY_HTTP_CERTIFICATE"], told["PARLEY_HTTP_KEY"]), ("/etc/parley-http/tls.crt", "/etc/parley-http/tls.key"))
        (volume,) = [v for v in pod["volumes"] if v["name"] == "http"]
        self.assertEqual(volume["secret"]["secretName"], "edge")
        self.assertIn("/etc/parley-http", [m["mountPath"] for m in pod["containers"][0]["volumeMounts"]])

    def test_tls_and_tracing_reach_every_process(self):
        objects = RENDERED["tls and tracing"]
        policies = by_name(of_kind(objects, "NetworkPolicy"))
        for name, _, spec in services(objects):
            container = spec["containers"][0]
            told = {v["name"]: v.get("value") for v in container["env"]}
            mounts = {m["name"]: m for m in container["volumeMounts"]}
            self.assertEqual(mounts["tls"]["mountPath"], "/etc/parley-tls", name)
            self.assertNotIn("subPath", mounts["tls"], f"{name}: what is mounted so is never renewed")
            self.assertNotIn("subPath", mounts["keys"], name)
            for variable, file in (("CERTIFICATE", "tls.crt"), ("KEY", "tls.key"), ("AUTHORITIES", "ca.crt")):
                self.assertEqual(told[f"PARLEY_TLS_{variable}"], f"/etc/parley-tls/{file}", name)
            self.assertEqual((told["PARLEY_TLS_SERVER_NAME"], told["PARLEY_TLS_MUTUAL"]), ("parley.internal", "true"), name)
            self.assertEqual(told["PARLEY_TRACE_ENDPOINT"], "http://collector.telemetry:4318", name)
            (volume,) = [v for v in spec["volumes"] if v["name"] == "tls"]
            self.assertEqual(volume["secret"]["secretName"], "certificates", name)
            collector = [rule for rule in policies[name]["spec"]["egress"] if rule.get("to", [{}])[0].get("namespaceSelector", {}).get(
                "matchLabels") == {"kubernetes.io/metadata.name": "telemetry"}]
            self.assertEqual([rule["ports"] for rule in collector], [[{"port": 4318, "protocol": "TCP"}]], name)
        for name, _, spec in pods(RENDERED["defaults"]):
            for variable in spec["containers"][0].get("env", []):
                self.assertNotRegex(variable["name"], "PARLEY_(TLS|TRACE)_", name)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    unittest.main(argv=[sys.argv[0]], verbosity=2)
