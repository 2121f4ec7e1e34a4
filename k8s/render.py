"""Renders the chart into k8s/base and k8s/overlays: `scripts/render-k8s` runs it.

base is the chart with its defaults, a file for each service. An overlay is what the chart renders with values/NAME.yaml, said as
its difference to base: JSON patches for objects of both, deletions, and files for objects of its own.
"""
import argparse
import pathlib
import sys

import dashboards
import helm_python
import yaml

K8S = pathlib.Path(__file__).resolve().parent
CHART = K8S / "chart"
NAMESPACE = "parley"
OVERLAYS = ("dev", "prod")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times quicker, where PyYAML was built with it
HEADER = "# Rendered from k8s/chart by scripts/render-k8s: change the chart, not this file.\n"


class Dumper(yaml.SafeDumper):
    """Multi-line texts as blocks, lists indented."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def dump(documents):
    return HEADER + "---\n".join(yaml.dump(d, Dumper=Dumper, sort_keys=False, width=130, allow_unicode=True) for d in documents)


def is_hook(thing):
    return "helm.sh/hook" in thing["metadata"].get("annotations", {})


def render(values=None, chart=CHART, namespace=NAMESPACE, hooks=False):
    """The objects that the chart makes of `values` (a dict over the defaults), or those that only Helm makes, for its tests. Raises
    HelmError, also for values that the schema refuses."""
    with helm_python.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(values or {})
        files = loaded.render(values or {}, name="parley", namespace=namespace)
    objects = []
    for path in sorted(files):
        if path.endswith(".yaml"):
            objects += [o for o in yaml.load_all(files[path], Loader=LOADER) if o and is_hook(o) == hooks]
    for thing in objects:
        thing["metadata"]["labels"].pop("app.kubernetes.io/managed-by", None)  # Helm does not manage what kustomize applies
        template = thing.get("spec", {}).get("template", {}).get("metadata", {})
        template.get("labels", {}).pop("app.kubernetes.io/managed-by", None)
    return objects


def values_of(name):
    return yaml.safe_load((CHART / "values" / f"{name}.yaml").read_text()) or {}


def key(thing):
    return thing["apiVersion"], thing["kind"], thing["metadata"]["name"]


def file_of(thing):
    """Objects of one service share a file."""
    shared = {"Namespace": "cluster", "PriorityClass": "cluster", "ResourceQuota": "cluster", "NetworkPolicy": "network",
              "HorizontalPodAutoscaler": "autoscaling", "ScaledObject": "autoscaling", "ServiceMonitor": "monitoring",
              "PodMonitor": "monitoring", "PrometheusRule": "rules"}
    if thing["metadata"]["labels"].get("grafana_dashboard"):
        return "dashboards.yaml"
    name = thing["metadata"]["name"]
    return shared.get(thing["kind"], "redis" if name.startswith("redis") else name) + ".yaml"


def difference(old, new, path=""):
    """JSON patch operations that make `new` of `old`; lists are replaced whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        operations = []
        for name in [n for n in old if n not in new]:
            operations.append({"op": "remove", "path": path + "/" + escaped(name)})
        for name, value in new.items():
            where = path + "/" + escaped(name)
            if name not in old:
                operations.append({"op": "add", "path": where, "value": value})
            else:
                operations += difference(old[name], value, where)
        return operations
    return [] if old == new else [{"op": "replace", "path": path, "value": new}]


def escaped(name):
    return str(name).replace("~", "~0").replace("/", "~1")


def grouped(objects):
    files = {}
    for thing in objects:
        files.setdefault(file_of(thing), []).append(thing)
    return {name: dump(things) for name, things in files.items()}


def kustomization(resources, patches=()):
    body = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    if patches:
        body["patches"] = list(patches)
    return dump([body])


def overlay(base, wanted):
    """The files of the overlay that makes `wanted` of `base`."""
    before, after = {key(o): o for o in base}, {key(o): o for o in wanted}
    files = grouped([o for o in wanted if key(o) not in before])
    patches = []
    for (version, kind, name), old in before.items():
        group, _, plain = version.rpartition("/")
        target = {"group": group, "version": plain, "kind": kind, "name": name}
        if not group:
            del target["group"]
        if (version, kind, name) not in after:
            gone = {"$patch": "delete", "apiVersion": version, "kind": kind, "metadata": {"name": name}}
            patches.append({"target": target, "patch": yaml.dump(gone, sort_keys=False)})
            continue
        operations = difference(old, after[(version, kind, name)])
        if operations:
            patches.append({"target": target, "patch": yaml.dump(operations, Dumper=Dumper, sort_keys=False, width=130)})
    files["kustomization.yaml"] = kustomization(["../../base"] + sorted(files), patches)
    return files


def rendered():
    """Every file below k8s/base and k8s/overlays with its text."""
    base = render()
    files = {pathlib.Path("base") / name: text for name, text in grouped(base).items()}
    files[pathlib.Path("base/kustomization.yaml")] = kustomization(sorted(p.name for p in files))
    for name in OVERLAYS:
        for file, text in overlay(base, render(values_of(name))).items():
            files[pathlib.Path("overlays") / name / file] = text
    return files


def stale_dashboards():
    there = {p.name: p.read_text() for p in dashboards.OUT.glob("*.json")}
    wanted = dashboards.texts()
    return [f"k8s/chart/files/dashboards/{name} is not what dashboards.py makes"
            for name in sorted(set(there) | set(wanted)) if there.get(name) != wanted.get(name)]


def differences(root, files):
    """What below `root` is not as in `files`."""
    there = {p.relative_to(root) for top in ("base", "overlays") for p in (root / top).rglob("*") if p.is_file()}
    wrong = [f"k8s/{p} is not rendered from the chart" for p in sorted(there - set(files))]
    for path, text in sorted(files.items()):
        if path not in there:
            wrong.append(f"k8s/{path} is missing")
        elif (root / path).read_text() != text:
            wrong.append(f"k8s/{path} differs from what the chart renders")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    if not check:
        dashboards.write()
    files = rendered()
    if check:
        wrong = stale_dashboards() + differences(K8S, files)
        print("\n".join(wrong) if wrong else f"{len(files)} files are as the chart renders them")
        return 1 if wrong else 0
    for line in differences(K8S, files):
        stale = K8S / line.split()[0].removeprefix("k8s/")
        if "not rendered" in line:
            stale.unlink()
    for path, text in files.items():
        (K8S / path).parent.mkdir(parents=True, exist_ok=True)
        (K8S / path).write_text(text)
    print(f"{len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
