# SPDX-License-Identifier: MIT
"""Damages files and uses them: python tests/fuzz/fuzz_files.py --count 10000 models data configs checkpoints

For every input the outcome has to be a result of finite numbers, or an exception of the library's own kind whose message names the file. A crash, a hang, a
NaN without an error, or an exception of a decoder is a failure, and its input is kept. Inputs are used in child processes, which are started anew where one
ended, so that each failure belongs to one input.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

SECONDS = 120  # of one input; the slowest take a second on a machine of their own
MEMORY = 12 << 30  # bytes of address space


def classify(kind, file: Path, rng: np.random.Generator) -> tuple[str, str]:
    """("ok" | "refused" | "failure", message)."""
    from kinds import Failure

    from adatom._core import DataError, ModelError

    try:
        kind.use(file, rng)
        return "ok", ""
    except Failure as error:
        return "failure", str(error)
    except Exception as error:  # noqa: BLE001
        message = f"{type(error).__name__}: {error}"
        own = type(error) in (ValueError, RuntimeError, ModelError, DataError, FileNotFoundError, OSError)
        named = file.name in message or "is not finite: " in message or file.suffix == ".toml"  # of a configuration keys are named
        decoder = any(word in message for word in ("json.exception", "std::", "vector::", "basic_string", "stoi"))
        if own and named and not decoder and (len(message) < 2000 or type(error) is OSError):  # a name can be too long itself
            return "refused", message
        return "failure", message + "\n" + "".join(traceback.format_tb(error.__traceback__)[-3:])


def child(name: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Prints a line for each input before and after it."""
    import warnings

    from kinds import KINDS

    warnings.simplefilter("ignore")
    kind = KINDS[name](folder)
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which takes terabytes of address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the library prints is none of the protocol
    print("ready", file=out)
    for k in range(first, last):
        rng = np.random.default_rng([seed, k])
        file_name, data = kind.damage(rng)
        file = folder / file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        print(json.dumps(["begin", k, str(file)]), file=out)
        print(json.dumps(["end", k, *classify(kind, file, rng)]), file=out)
        file.unlink(missing_ok=True)


def watch(command: list[str]) -> tuple[list, list | None, str]:
    """Outcomes of a child, the input at which it ended (null where it did all), and how it ended."""
    outcomes, current = [], None
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        os.set_blocking(process.stdout.fileno(), False)
        last, buffer, ended = time.monotonic(), b"", ""
        while True:
            chunk = process.stdout.read()
            if chunk:
                last, buffer = time.monotonic(), buffer + chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    if not line.startswith(b"["):
                        continue
                    record = json.loads(line)
                    current = record if record[0] == "begin" else None
                    if record[0] == "end":
                        outcomes.append(record[1:])
            elif process.poll() is not None:
                if process.returncode:
                    errors.seek(0)
                    ended = f"exit code {process.returncode}: " + errors.read().decode(errors="replace")[-1500:]
                break
            elif time.monotonic() - last > (SECONDS if outcomes or current else 10 * SECONDS):  # it first makes its good files
                process.kill()
                process.wait()
                ended = f"no end within {SECONDS} s"
                break
            else:
                time.sleep(0.01)
        process.stdout.close()
    return outcomes, current, ended


def fuzz(name: str, count: int, seed: int, keep: Path, first: int = 0, chunk: int = 500) -> dict:
    """Outcomes of inputs first .. first + count - 1 of a kind, and the failures among them."""
    found: dict = {"kind": name, "ok": 0, "refused": 0, "failures": []}
    at, last = first, first + count
    with tempfile.TemporaryDirectory() as folder:
        while at < last:
            end = min(at + chunk, last)
            outcomes, current, ended = watch([sys.executable, __file__, "--child", name, str(seed), str(at), str(end), folder])
            for k, outcome, message in outcomes:
                if outcome == "failure":
                    found["failures"].append({"input": k, "what": message})
                else:
                    found[outcome] += 1
            if not ended:
                at = end
                continue
            if not current:
                raise RuntimeError(f"the fuzzer itself ended: {ended}")
            found["failures"].append({"input": current[1], "what": ended})
            at = current[1] + 1
        if found["failures"]:
            keep.mkdir(parents=True, exist_ok=True)
            from kinds import KINDS

            kind = KINDS[name](Path(folder))
            for failure in found["failures"]:
                file_name, data = kind.damage(np.random.default_rng([seed, failure["input"]]))
                file = keep / f"{name}_{seed}_{failure['input']}_{Path(file_name).name}"
                file.write_bytes(data)
                failure["file"] = str(file)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["models", "data", "configs", "checkpoints"])
    parser.add_argument("--count", type=int, default=10000, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for inputs that failed")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, seed, first, last, folder = arguments.child
        child(name, int(seed), int(first), int(last), Path(folder))
        return 0
    failures = 0
    for name in arguments.kinds:
        started = time.monotonic()
        found = fuzz(name, arguments.count, arguments.seed, arguments.keep, arguments.first)
        failures += len(found["failures"])
        print(f"{name}: {found['ok']} used, {found['refused']} refused, {len(found['failures'])} failures, {time.monotonic() - started:.0f} s", flush=True)
        for failure in found["failures"]:
            print(f"  input {failure['input']} ({failure['file']}): {failure['what']}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
