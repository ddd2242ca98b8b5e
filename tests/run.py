# SPDX-License-Identifier: MIT
"""Runs every test and ends with one line, `N passed, N failed, N skipped`, over all runners.

C++: ctest in the build folder. Python, LAMMPS, examples, README: pytest. Exit code 1 if any test failed, a runner broke, or a runner ran nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def outcomes(report: Path) -> Counter:
    """Counts the test cases of a JUnit file, as ctest and pytest write them."""
    counts = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        # ctest marks by attribute (run, fail, notrun, disabled), pytest by child element
        tags = {child.tag for child in case} | {case.get("status")}
        if tags & {"failure", "error", "fail"}:
            counts["failed"] += 1
        elif tags & {"skipped", "disabled"} and "notrun" not in tags:
            counts["skipped"] += 1
        elif "notrun" in tags:  # its executable is missing, or a fixture that it needs failed
            counts["failed"] += 1
        else:
            counts["passed"] += 1
    return counts


def run(name: str, command: list[str], report: Path, cwd: Path) -> Counter:
    print(f"== {name}: {' '.join(command)}", flush=True)
    report.unlink(missing_ok=True)
    code = subprocess.run(command, cwd=cwd).returncode
    counts = outcomes(report) if report.is_file() else Counter()
    if sum(counts.values()) == 0:
        print(f"error: {name} ran no test", flush=True)
        counts["failed"] += 1
    elif code and not counts["failed"]:
        print(f"error: {name} exited with {code} although no test of it failed", flush=True)
        counts["failed"] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/release"), help="build folder with the C++ tests")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    arguments = parser.parse_args()
    build = (ROOT / arguments.build).resolve()
    os.environ["ADATOM_BUILD_FOLDER"] = str(build)  # for tests of what is not installed
    reports = ROOT / "build" / "reports"
    reports.mkdir(parents=True, exist_ok=True)

    cores = str(len(os.sched_getaffinity(0)))
    total = run("C++", ["ctest", "--parallel", cores, "--output-on-failure", "--output-junit", str(reports / "ctest.xml")], reports / "ctest.xml", build)
    total += run(
        "Python, LAMMPS, examples, README",
        [sys.executable, "-m", "pytest", "--durations=5", f"--junitxml={reports / 'pytest.xml'}", *arguments.pytest],
        reports / "pytest.xml",
        ROOT,
    )
    print(f"{total['passed']} passed, {total['failed']} failed" + (f", {total['skipped']} skipped" if total["skipped"] else ""))
    return 0 if total["passed"] and not total["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
