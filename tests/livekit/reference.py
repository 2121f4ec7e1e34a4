#!/usr/bin/env python3
"""reference.py [--check]: the table in docs/livekit.md, from the list that the tests walk."""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "livekit.md"
LIST = ROOT / "docs" / "livekit-surface.json"
BEGIN, END = "<!-- table: scripts/livekit-reference -->\n", "<!-- end of the table -->\n"
STATUSES = ("supported", "differs", "not yet")


def table():
    rows = json.loads(LIST.read_text(encoding="utf-8"))
    out, area = [], None
    for row in rows:
        assert row["status"] in STATUSES, row
        assert row["status"] != "differs" or row.get("note"), f"how does it differ? {row}"
        if row["area"] != area:
            area = row["area"]
            out.append(f"\n### {area}\n\n| | | |\n|---|---|---|\n")
        out.append(f"| {row['name']} | {row['status']} | {row.get('note', '')} |\n")
    return "".join(out).lstrip("\n") + "\n"


def main():
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    wanted = head + BEGIN + "\n" + table() + END + tail
    if "--check" in sys.argv[1:]:
        if page != wanted:
            sys.exit("docs/livekit.md is not what docs/livekit-surface.json says: run scripts/livekit-reference")
        return
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
