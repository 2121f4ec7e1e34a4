"""docs/metrics.md, made from what the services really serve. Usage: metrics_reference.py [--write]; without it, exit 1 and the
difference when the page is not what they serve. Needs PARLEY_BIN_DIR and PARLEY_SOURCE_DIR, as tests have them."""
import difflib
import os
import pathlib
import re
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import cluster  # noqa: E402

PAGE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"]) / "docs" / "metrics.md"
PORTS = {"dispatch_broker": 8100, "agent_registry": 8101, "room_server": 8105, "stt_gateway": 8102, "tts_gateway": 8103,
         "llm_gateway": 8104, "api_server": 9080, "agent_server": 8081}
OPEN = {"engine", "pool", "version"}  # labels whose values depend on what is configured, or built
HEAD = """# Metrics

What each service serves on `/metrics` (its admin port, gRPC port + 1000; api_server 9080, agent server 8081). Made by
`scripts/metrics-reference` from the running services; a test fails when it is not true. Times are in seconds. Labels come from small
closed sets, never ids. Histograms have buckets from 0.5 ms to 60 s.

What every broker says of a pool is about the whole pool: take `max by (pool)`, not the sum. `parley_worker_slots` without `pool` is one
agent server's own.
"""


def families(text):
    """name → (type, help, {label: set of values}) of a page of metrics."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, about = line.split(" ", 3)
            found[name] = ["", about, {}]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            found[name][0] = kind
        elif line:
            match = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ", line)
            name = match.group(1)
            family = name if name in found else re.sub(r"_(bucket|sum|count)$", "", name)
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""):
                if label != "le":
                    found[family][2].setdefault(label, set()).add(value)
    return found


def scrape(dev):
    """service → families, of a cluster of tests/e2e, once its broker has counted its pool."""
    deadline = time.monotonic() + 15
    while True:
        pages = {}
        for service, port in PORTS.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port + dev.offset}/metrics", timeout=10) as answer:
                pages[service] = families(answer.read().decode())
        if {"parley_worker_desired", "parley_dispatch_pending_jobs"} <= set(pages["dispatch_broker"]) or time.monotonic() > deadline:
            return pages
        time.sleep(0.1)


def labels(family):
    made = []
    for label, values in sorted(family[2].items()):
        made.append(f"`{label}`" if label in OPEN else f"`{label}`: " + ", ".join(sorted(values)))
    return "; ".join(made)


def page(pages):
    parts = [HEAD]
    for service, found in pages.items():
        parts.append(f"\n## {service}\n\n| metric | kind | what | labels |\n|---|---|---|---|\n")
        for name, family in sorted(found.items()):
            parts.append(f"| `{name}` | {family[0]} | {family[1]} | {labels(family)} |\n")
    return "".join(parts)


def providers(folder):
    """Environment: providers with budgets, one project's key of its own, so that what is said of these is there; nobody listens at
    their address."""
    keys = pathlib.Path(folder) / "keys"
    keys.mkdir()
    (keys / "hotel").write_text("a-key-of-its-own\n")
    values = {"BASE_URL": "http://127.0.0.1:9/v1", "MAX_STREAMS": "20", "PROJECT_KEYS": str(keys)}
    return {f"PARLEY_{kind}_OPENAI_{name}": value for kind in ("STT", "TTS", "LLM") for name, value in values.items()}


def main():
    dev = cluster.Dev()
    try:
        dev.start(env=providers(dev.folder.name))
        text = page(scrape(dev))
        dev.stop()
    finally:
        dev.close()
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(text)
        return 0
    lines = list(difflib.unified_diff(PAGE.read_text().splitlines(), text.splitlines(), "docs/metrics.md", "served", lineterm=""))
    print("\n".join(lines) or "docs/metrics.md is what the services serve")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
