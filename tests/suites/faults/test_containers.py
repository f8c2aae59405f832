"""Users and file systems as containers have them: a number without a name, no home, nothing that can be written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import CommandResult, ProjectFixture

UID = 54_321
"""A user that has no name anywhere."""
MAPPED = ("unshare", "--user", f"--map-user={UID}", f"--map-group={UID}")
REAL = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
# As root a real one; it may read what only root may enter, as the interpreter of these tests, but write nothing there.
CAPABLE = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
AS_USER = MAPPED if os.geteuid() else (*REAL, *CAPABLE)
AS_ROOT = ("unshare", "--mount", *(("--map-root-user",) if os.geteuid() else ()))
HOMELESS = ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "USER", "LOGNAME")
STEPS = ({"id": "one"}, {"id": "gate", "use": "faulty.gate"}, {"id": "speed", "use": "faulty.measure"})


def own(path: Path) -> None:
    """Give a folder and what is in it to the user."""
    if not os.geteuid():
        for each in (path, *path.rglob("*")):
            os.chown(each, UID, UID, follow_symlinks=False)


@pytest.fixture
def bench() -> Iterator[ProjectFixture]:
    """Give a project of the user, who has nothing else, where the user may enter: pytest's folders are root's alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = ProjectFixture(Path(folder) / "project")
        made.recipe(*STEPS)
        made.environment()  # makes the folders beside the project
        own(Path(folder))
        yield made


def as_user(
    bench: ProjectFixture,
    *arguments: object,
    without: tuple[str, ...] = (),
    as_who: tuple[str, ...] = AS_USER,
    **env: str,
) -> CommandResult:
    """Run a command as the user, without some variables."""
    variables = {name: value for name, value in bench.environment(**env).items() if name not in without or name in env}
    done = subprocess.run(
        [*as_who, *bench.command(*arguments)],
        cwd=bench.home,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def run(bench: ProjectFixture) -> list[object]:
    return bench.run_arguments(bench.home / "small.yaml")


@pytest.mark.parametrize("home", [None, "/", "/nonexistent", ""], ids=str)
def test_a_user_that_is_a_number_builds(bench: ProjectFixture, home: str | None) -> None:
    """`docker run --user`, OpenShift: no name, and no home or one that is not there."""
    env = {} if home is None else {"HOME": home}
    as_user(bench, *run(bench), without=HOMELESS, **env).expect(0, "built     speed")
    said = as_user(bench, *run(bench), without=HOMELESS, **env).expect(0, "cached    speed")
    assert "bug" not in said.err and bench.leftovers() == []
    assert not (bench.home / "~").exists()
    for looking in ("history", "store verify", "store gc"):
        as_user(bench, *looking.split(), "--store", bench.store, without=HOMELESS, **env).expect(0)


@pytest.mark.parametrize(
    "arguments",
    ["run small.yaml", "plan small.yaml", "lock small.yaml", "refresh small.yaml", "status small.yaml", "history",
     "doctor", "store stat", "store gc", "env list", "env create optimum"],
)  # fmt: skip
def test_without_a_home_a_store_is_asked_for(bench: ProjectFixture, arguments: str) -> None:
    said = as_user(bench, *arguments.split(), without=HOMELESS)
    said.expect(2, "the home directory of this user is unknown: set HOME, or name a")
    assert ("CPU_PIPELINE_ENVIRONMENTS" if arguments.startswith("env") else "--store or CPU_PIPELINE_STORE") in said.err
    assert not (bench.home / "~").exists()


@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_a_home_that_cannot_be_written_to_is_said(bench: ProjectFixture, home: str) -> None:
    said = as_user(bench, "run", "small.yaml", without=HOMELESS, HOME=home)
    said.expect(2, "not writable")


def test_a_folder_for_temporary_files_that_is_not_there(bench: ProjectFixture) -> None:
    as_user(bench, *run(bench), without=HOMELESS, TMPDIR="/nonexistent").expect(0)


def closed_disk(
    bench: ProjectFixture, writable: list[Path], *commands: list[object], **env: str
) -> list[CommandResult]:
    """Run commands where every file system is read-only but for some folders, and there is no home."""
    kept = [f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(path))}" for path in writable]
    lines = [
        *kept,
        "for at in $(cut -d' ' -f5 /proc/self/mountinfo); do case $at in",
        *(f"{shlex.quote(str(path))}) ;;" for path in writable),
        "/proc*|/sys*|/dev|/dev/null|/dev/pts|/dev/mqueue) ;;",
        "*) mount -o remount,bind,ro $at || exit 99;; esac; done",
        "touch /tmp/written 2>/dev/null && exit 98",
    ]
    found = []
    for command in commands:
        script = "\n".join(
            [*lines, f"cd {shlex.quote(str(bench.home))}", f"exec {shlex.join(bench.command(*command))}"]
        )
        variables = {n: v for n, v in bench.environment(**env).items() if n not in HOMELESS or n in env}
        done = subprocess.run(
            [*AS_ROOT, "sh", "-c", script], cwd=bench.home, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode not in (98, 99), done.stderr
        found.append(CommandResult(done.returncode, done.stdout, done.stderr))
    return found


@pytest.fixture
def own_bench(tmp_path: Path) -> ProjectFixture:
    """Give a project of whoever runs the tests."""
    made = ProjectFixture(tmp_path / "box" / "project")
    made.recipe(*STEPS)
    made.environment()
    return made


def test_a_read_only_root_with_one_volume(own_bench: ProjectFixture) -> None:
    """`docker run --read-only -v work:/work`, `readOnlyRootFilesystem`."""
    [first, second] = closed_disk(
        own_bench, [own_bench.home], run(own_bench), run(own_bench), TMPDIR=str(own_bench.home)
    )
    first.expect(0, "built     speed")
    second.expect(0, "cached    speed")
    assert own_bench.leftovers() == []


def test_a_read_only_root_with_a_volume_of_the_store_alone(own_bench: ProjectFixture) -> None:
    """The project is part of the image, as is the place of artifacts by default: a build says so, or has another."""
    own_bench.store.mkdir()
    temporary = own_bench.home.parent / "tmp"
    own_bench.runs = temporary / "runs.txt"
    recipe = own_bench.recipe(*STEPS)
    store = ["--store", own_bench.store]
    [plan, built, elsewhere] = closed_disk(
        own_bench, [own_bench.store, temporary], ["plan", recipe, *store], run(own_bench),
        ["run", recipe, *store, "--out", temporary / "out"],
    )  # fmt: skip
    plan.expect(0)
    built.expect(2, str(own_bench.out), "ead-only")
    elsewhere.expect(0)


def test_without_any_place_for_temporary_files(own_bench: ProjectFixture) -> None:
    own_bench.store.mkdir()
    for said in closed_disk(own_bench, [own_bench.store], run(own_bench), ["plan", own_bench.home / "small.yaml"]):
        assert said.code in (2, 75), said.err
        assert "no folder for temporary files can be written to" in said.err or "home directory" in said.err, said.err


def test_a_read_only_root_without_any_volume(own_bench: ProjectFixture) -> None:
    recipe = own_bench.home / "small.yaml"
    for said in closed_disk(own_bench, [], run(own_bench), ["lock", recipe, "--store", own_bench.store]):
        assert said.code in (2, 75), said.err
        assert "is not writable: Read-only file system" in said.err or "no folder for temporary files" in said.err


@pytest.fixture
def place(bench: ProjectFixture) -> Iterator[Path]:
    """Give the place of the machine's lock: below a shared folder, where there is no other."""
    shared = bench.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    yield shared / "cpu-pipeline"
    shutil.rmtree(shared)


def test_a_plain_file_in_the_place_of_the_lock(bench: ProjectFixture) -> None:
    """In each place in turn; in the last, in the store, the message names it."""
    own_run = bench.home.parent / "run"
    (own_run / "cpu-pipeline").touch()
    as_user(bench, *run(bench), without=HOMELESS, XDG_RUNTIME_DIR=str(own_run)).expect(0)
    shutil.rmtree(bench.store)
    bench.store.mkdir()
    (bench.store / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (bench.store / "machine").touch()
    own(bench.store)
    said = as_user(bench, *run(bench), without=HOMELESS)
    said.expect(2, f"{bench.store / 'machine'} can't be a directory of this user alone; remove what is in its place")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_a_folder_of_another_user_in_the_place_of_the_lock(bench: ProjectFixture, place: Path, mode: int) -> None:
    """In a shared /tmp another user was first: it blocks nobody, and nothing is written there."""
    place.mkdir()
    place.chmod(mode)  # it is root's; without root, a folder that all may write to is not trusted either
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        shutil.rmtree(bench.store, ignore_errors=True)
        env = {variable: str(place.parent)}
        as_user(bench, *run(bench), without=HOMELESS, **env).expect(0, "built     speed")
    if not os.geteuid() or mode == 0o777:
        assert list(place.iterdir()) == []


def test_a_link_of_another_user_in_the_place_of_the_lock(bench: ProjectFixture, place: Path) -> None:
    """It leads into a folder of this user, who would fill it."""
    target = bench.home / "precious"
    target.mkdir()
    own(target)
    place.symlink_to(target)
    as_user(bench, *run(bench), without=HOMELESS, XDG_RUNTIME_DIR=str(place.parent)).expect(0)
    assert list(target.iterdir()) == []


def test_two_users_share_a_folder_for_temporary_files(bench: ProjectFixture) -> None:
    """Each with a store of its own: the second is not stopped by what the first left in the shared folder."""
    shared = bench.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    first = ProjectFixture(bench.home.parent / "other" / "project")
    first.recipe(*STEPS)
    for one, who in ((first, ()), (bench, AS_USER)):
        as_user(one, *run(one), without=HOMELESS, as_who=who, TMPDIR=str(shared)).expect(0, "built     speed")
    if not os.geteuid():  # the store of the first is not the second's to write to
        said = as_user(bench, "run", "small.yaml", "--store", first.store, without=HOMELESS)
        said.expect(2, str(first.store), "not writable")
