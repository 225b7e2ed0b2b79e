"""The fault table: every fault, where it happens, how long until both arms stand still, what the operator is told.

    python benchmarks/faults.py                                   # all of them, some minutes
    python benchmarks/faults.py --keyword C24 --json faults.json --markdown faults.md

The rows come from the tests themselves, each run once. "held" counts from the fault (from its detection for what only
shows with time: old pictures, a full disk) to the last new servo target of either arm. A busy machine makes it longer.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from horseshoe.configuration import write_atomically

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/hardware/test_faults.py",
    "tests/ros_ws/test_graph.py",
    "tests/ros_ws/test_real.py",
    "tests/ros_ws/test_up.py",
)
HOLD_WITHIN = 0.1  # [s]


def run(keyword: str) -> list[dict[str, Any]]:
    """Run the tests and collect what they noted."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", *TESTS, f"--junitxml={report}"]
        command += ["-k", keyword] if keyword else []
        subprocess.run(command, cwd=ROOT)
        cases = list(ET.parse(report).iter("testcase"))
    rows = []
    for case in cases:
        noted = {p.get("name"): p.get("value") for p in case.iter("property")}
        failed = case.find("failure") is not None or case.find("error") is not None
        if "fault" not in noted:
            if failed:
                rows.append({"fault": case.get("name"), "where": "-", "held": None, "passed": False, "message": "-"})
            continue
        held = float(noted["held"]) if noted.get("held") else None
        message = re.sub(r"\S*/pytest-\d+/", ".../", " ".join(str(noted["message"]).split()))
        rows.append(noted | {"held": held, "passed": not failed, "message": message})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| fault | where | both held after | test | the operator is told |", "|---|---|---|---|---|"]
    for row in rows:
        held = "-" if row["held"] is None else f"{1000 * row['held']:.0f} ms"
        held += " (late)" if row["held"] is not None and row["held"] > HOLD_WITHIN else ""
        passed = "passed" if row["passed"] else "FAILED"
        lines.append(f"| {row['fault']} | {row['where']} | {held} | {passed} | {row['message']} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyword", default="", help="only tests whose names match, as with pytest -k")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows = run(options.keyword)
    table = markdown(rows)
    print(table)
    late = sum(row["held"] is not None and row["held"] > HOLD_WITHIN for row in rows)
    failed = sum(not row["passed"] for row in rows)
    print(f"\n{len(rows)} faults, {failed} failed, {late} held later than {1000 * HOLD_WITHIN:.0f} ms")
    if options.json:
        write_atomically(options.json, json.dumps(rows, indent=2) + "\n")
    if options.markdown:
        write_atomically(options.markdown, table + "\n")
    return int(failed + late > 0)


if __name__ == "__main__":
    sys.exit(main())
