#!/usr/bin/env python3
"""Prints every test of a build with its tier, its kind and the seconds that its last run took."""
import json
import pathlib
import subprocess
import sys

TIERS = ("fast", "chaos", "clients", "browser", "soak", "images", "tsan")


def measured_seconds(build):
    """Name -> seconds, as ctest keeps them between runs."""
    path = build / "Testing/Temporary/CTestCostData.txt"
    seconds = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line == "---":
            break
        name, runs, cost = line.rsplit(" ", 2)
        if int(runs):
            seconds[name] = float(cost)
    return seconds


def main():
    build = pathlib.Path(sys.argv[1])
    answer = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                            check=True, capture_output=True, text=True).stdout
    seconds = measured_seconds(build)
    rows = []
    for test in json.loads(answer)["tests"]:
        properties = {p["name"]: p["value"] for p in test.get("properties", [])}
        labels = properties.get("LABELS", [])
        tier = next((t for t in TIERS if t in labels), "none")
        kind = ",".join(sorted(set(labels) - set(TIERS)))
        rows.append((TIERS.index(tier) if tier in TIERS else len(TIERS), tier, kind, test["name"]))
    for _, tier, kind, name in sorted(rows):
        took = f"{seconds[name]:8.1f}" if name in seconds else "       -"
        print(f"{tier:8} {kind:14} {took} s  {name}")
    known = [seconds[r[3]] for r in rows if r[1] == "fast" and r[3] in seconds]
    print(f"\n{len(rows)} tests; fast tier measured: {sum(known):.0f} s of test time")


if __name__ == "__main__":
    main()
