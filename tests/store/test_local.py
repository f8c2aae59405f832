"""The store serves what was committed, or nothing; whatever is cut, flipped, full, killed or raced."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from collecting import gc
from filelock import FileLock

from cpu_pipeline.core import files
from cpu_pipeline.core.artifact import Artifact, digest_json, digest_tree
from cpu_pipeline.core.errors import RecipeError, StageFailed, TryAgain
from cpu_pipeline.store import local as store_module
from cpu_pipeline.store.contents import verify
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store, default_root, disk_error
from cpu_pipeline.store.record import Action, parse_record, record_text

HERE = Path(__file__).parents[2]
FILES = {"model.onnx": b"weights" * 20, "tokenizer/vocab.txt": b"a\nb\n"}


def key(number: int) -> str:
    return digest_json(["key", number])


def fill(work: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)


def commit(lease: Lease, number: int = 1, files: dict[str, bytes] = FILES, **facts: object) -> Artifact:
    work = lease.work(key(number))
    fill(work, files)
    run = {"seconds": 1.5, "peak_memory": 7, "when": 1e9}
    return lease.commit(key(number), {"stage": "export.onnx", "options": {"n": number}}, "onnx", facts, run, work)


def snapshot(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# What it keeps


def test_opening_and_looking_write_nothing(store: Store, tmp_path: Path) -> None:
    assert store.find(key(1)) is None
    assert store.action(key(1)) is None
    assert store.last("recipe/step") is None
    store.path_of(key(1))
    assert list(tmp_path.iterdir()) == []
    with leased(store) as lease:
        commit(lease)
    before = snapshot(store.root)
    again = Store(store.root)
    assert again.find(key(1)) is not None
    assert again.check(again.find(key(1)))
    assert snapshot(store.root) == before


def test_what_is_committed_is_found(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease, 1, f1=0.5, shape=(1, 2))
        assert lease.find(key(1)) == made
    found = Store(store.root).find(key(1))
    assert found == made
    assert found.facts == {"f1": 0.5, "shape": [1, 2]}
    assert found.path == store.path_of(found.digest)
    assert {name: (found.path / name).read_bytes() for name in FILES} == FILES
    assert digest_tree(found.path) == found.digest
    action = store.action(key(1))
    assert action is not None
    assert action.ingredients["options"] == {"n": 1}
    assert action.size == sum(map(len, FILES.values()))
    assert action.run == {"seconds": 1.5, "peak_memory": 7, "when": 1e9}


def test_objects_are_read_only_and_nothing_is_left_in_work(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease)
    assert {(made.path / name).stat().st_mode & 0o777 for name in FILES} == {0o444}
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "leases").iterdir()) == []


def test_two_keys_with_one_content_share_an_object(store: Store) -> None:
    with leased(store) as lease:
        assert commit(lease, 1).path == commit(lease, 2).path
    assert len(list((store.root / "objects").glob("*/*"))) == 1


def test_empty_directories_do_not_tell_two_outputs_apart(store: Store) -> None:
    with leased(store) as lease:
        work = lease.work(key(1))
        fill(work, FILES)
        (work / "empty" / "inside").mkdir(parents=True)
        made = lease.commit(key(1), {}, "onnx", {}, {}, work)
    assert not (made.path / "empty").exists()


def test_committing_over_a_damaged_object_replaces_it(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease)
    victim = made.path / "model.onnx"
    victim.chmod(0o644)
    victim.write_bytes(b"W" + victim.read_bytes()[1:])
    fresh = Store(store.root)
    with leased(fresh) as lease:
        assert commit(lease, 2).digest == made.digest
    assert victim.read_bytes() == FILES["model.onnx"]
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_the_same_key_may_come_out_differently(store: Store) -> None:
    with leased(store) as lease:
        commit(lease)
        second = commit(lease, 1, {"other": b"x"})
    assert Store(store.root).find(key(1)) == second


@pytest.mark.parametrize("facts", [{"f1": float("nan")}, {"f1": object()}, {("a",): 1}, {"f1": "\ud800"}])
def test_facts_that_are_not_json_fail_the_stage(store: Store, facts: dict[object, object]) -> None:
    with leased(store) as lease:
        work = lease.work(key(1))
        fill(work, FILES)
        with pytest.raises(StageFailed, match="not plain JSON"):
            lease.commit(key(1), {}, "onnx", facts, {}, work)  # type: ignore[arg-type]
    assert store.find(key(1)) is None


def test_links_and_emptiness_fail_the_stage(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    (tmp_path / "folder").mkdir()

    def pipe(path: Path) -> None:
        os.mkfifo(path)

    makers = {
        "a link": [lambda p: p.symlink_to(tmp_path / "outside"), lambda p: p.symlink_to(tmp_path / "folder")],
        "a hard link": [lambda p: p.hardlink_to(tmp_path / "outside")],
        "no file": [pipe],
    }
    with leased(store) as lease:
        for says, each in makers.items():
            for make in each:
                work = lease.work(key(1))
                fill(work, FILES)
                make(work / "tokenizer" / "bad")
                with pytest.raises(StageFailed, match=rf"tokenizer/bad is {says}:"):
                    lease.commit(key(1), {}, "onnx", {}, {}, work)
        with pytest.raises(StageFailed, match="wrote nothing"):
            lease.commit(key(1), {}, "onnx", {}, {}, lease.work(key(1)))
    assert store.find(key(1)) is None
    assert (tmp_path / "outside").stat().st_mode & 0o200  # what a link pointed to was not sealed


def test_labels_are_remembered(store: Store) -> None:
    with leased(store) as lease:
        commit(lease, 1)
        commit(lease, 2, {"b": b"2"})
    for label in ("roberta-qa/int8", "../../etc/passwd", "é ü/..", ".", "x" * 300, "x" * 301, "A:b*?"):
        store.remember(label, key(1))
        store.remember(label, key(2))
        store.remember(label, key(2))
    store.remember("x" * 300, key(1))
    assert store.last("x" * 300) == store.action(key(1))
    assert store.last("x" * 301) == store.action(key(2)) == store.last(".")
    assert len(list((store.root / "last").iterdir())) == 7
    for junk in (b"\xff junk", b"", b"\0", b"../../x"):
        for path in (store.root / "last").iterdir():
            path.write_bytes(junk)
        assert store.last("roberta-qa/int8") is None


def test_scratch_outlives_a_lease_and_logs_have_a_place(store: Store) -> None:
    with leased(store):
        (store.scratch(key(1)) / "checkpoint").write_text("half")
    assert (Store(store.root).scratch(key(1)) / "checkpoint").read_text() == "half"
    store.drop_scratch(key(1))
    store.drop_scratch(key(1))
    assert list((store.root / "scratch").iterdir()) == []
    store.log(key(1)).write_text("said")
    assert store.log(key(1)).read_text() == "said"


def test_the_scratch_of_what_is_done_is_swept_and_of_what_is_being_built_is_not(store: Store) -> None:
    with leased(store) as lease:
        commit(lease, 1)
        (store.scratch(key(1)) / "killed before it was dropped").write_text("x")
        (store.scratch(key(2)) / "half").write_text("x")
        with leased(store):
            assert len(list((store.root / "scratch").iterdir())) == 2
    with leased(store):
        assert [path.name for path in (store.root / "scratch").iterdir()] == [key(2)]


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PIPELINE_STORE", "/somewhere/else")
    assert default_root() == Path("/somewhere/else")
    monkeypatch.delenv("CPU_PIPELINE_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_root().parts[-2:] == ("cpu-pipeline", "store")


# Damage: F8, F9, F10


JUNK = [
    b"",
    b"\0",
    b"null",
    b"true",
    b"1",
    b"1e999",
    b'"text"',
    b"[]",
    b"{}",
    b"\xff\xfe{",
    b"[" * 100_000,
    b'{"check": 1}',
]


def test_a_record_cut_at_any_length_or_of_any_type_is_a_miss(store: Store) -> None:
    with leased(store) as lease:
        commit(lease, 1, f1=0.5)
    record = store.record_of(key(1))
    whole = record.read_bytes()
    for text in (*(whole[:length] for length in range(len(whole) - 1)), *JUNK):
        record.write_bytes(text)
        assert store.action(key(1)) is None
        assert store.find(key(1)) is None
    body = json.loads(whole)
    for name in body:
        for value in (None, True, 0, "", [], {}, [[]], {"a": 1}, {"model.onnx": 3}, "../../etc"):
            if body[name] == value:
                continue
            record.write_text(json.dumps(body | {name: value}))
            assert store.find(key(1)) is None, (name, value)
            if name != "check":  # even if the digest of the record agrees
                bad = {k: v for k, v in (body | {name: value}).items() if k != "check"}
                record.write_text(json.dumps(bad | {"check": digest_json(bad)}))
                if name in ("key", "object", "files"):
                    assert store.find(key(1)) is None, (name, value)
        record.write_text(json.dumps({k: v for k, v in body.items() if k != name}))
        assert store.find(key(1)) is None
    record.write_bytes(whole)
    assert store.find(key(1)) is not None
    store.record_of(key(2)).parent.mkdir(exist_ok=True)
    store.record_of(key(2)).write_bytes(whole)  # another key's record
    assert store.find(key(2)) is None
    record.unlink()
    record.mkdir()
    assert store.find(key(1)) is None


def test_a_flipped_bit_in_a_record_is_a_miss(store: Store) -> None:
    action = Action({"stage": "s"}, "onnx", digest_json(["tree", {"a": "0"}]), {"a": (1, "0")}, {}, {})
    whole = record_text(key(1), action).encode()
    assert parse_record(key(1), whole) == action
    for place in range(len(whole)):
        for bit in (1, 32):
            text = bytearray(whole)
            text[place] ^= bit
            assert parse_record(key(1), bytes(text)) in (None, action)  # white space may differ


def test_a_missing_cut_or_additional_file_is_a_miss(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease)
    file = made.path / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"short")
    assert store.find(key(1)) is None
    file.write_bytes(FILES["model.onnx"])
    assert store.find(key(1)) is not None
    (made.path / "more").write_bytes(b"")
    assert store.find(key(1)) is None
    (made.path / "more").unlink()
    file.rename(store.root / "elsewhere")
    assert store.find(key(1)) is None
    file.symlink_to(store.root / "elsewhere")
    assert store.find(key(1)) is None


def test_an_object_that_is_gone_is_a_miss_and_is_built_again(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease)
        files.remove_tree(made.path)
        assert store.action(key(1)) is not None
        assert store.find(key(1)) is None
        assert lease.find(key(1)) is None
        assert not store.check(made) or made.digest in store._checked
        assert not Store(store.root).check(made)
        assert commit(lease) == made
    assert Store(store.root).check(made)


def test_a_bit_flipped_anywhere_is_set_aside(store: Store) -> None:
    files = {"a": b"\x00\xffab", "b/c": b"z"}
    for name, place in [(name, place) for name, data in files.items() for place in range(len(data))]:
        with leased(store) as lease:
            made = commit(lease, 1, files)
        (made.path / name).chmod(0o644)
        data = bytearray(files[name])
        data[place] ^= 1 << (place % 8)
        (made.path / name).write_bytes(data)
        fresh = Store(store.root)
        assert fresh.find(key(1)) == made  # `find` does not read
        assert not fresh.check(made)
        assert fresh.find(key(1)) is None
        assert (name, place) and not made.path.exists()
        store = Store(store.root)
    assert len(list((store.root / "damaged").iterdir())) == 5


def test_check_reads_an_object_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(store) as lease:
        made = commit(lease)
    reads: list[Path] = []
    monkeypatch.setattr(store_module, "intact", lambda path, digest: reads.append(path) or True)
    fresh = Store(store.root)
    assert fresh.check(made) and fresh.check(made)
    assert reads == [made.path]


def test_check_leaves_alone_what_was_rebuilt_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(store) as lease:
        made = commit(lease)

    def slowly(path: Path, digest: str) -> bool:
        with leased(Store(store.root)) as other:
            path.rename(store.root / "damaged" / "first")
            monkeypatch.undo()
            commit(other)
        return False

    monkeypatch.setattr(store_module, "intact", slowly)
    assert not Store(store.root).check(made)
    assert Store(store.root).check(made)


# Places and disks: F7, F13


def test_a_path_with_spaces_and_unicode(tmp_path: Path) -> None:
    store = Store(tmp_path / "a b" / "größe 模型 '$x'")
    with leased(store) as lease:
        made = commit(lease)
    assert Store(store.root).find(key(1)) == made
    assert verify(store) == []


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecipeError, match=r"file is not a directory"):
        Store(tmp_path / "file")
    with pytest.raises(RecipeError, match=r"below is not a directory"), leased(Store(tmp_path / "file" / "below")):
        pass


def test_a_directory_of_something_else_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("precious")
    with pytest.raises(RecipeError, match=r"is not a store: it holds 'work'"), leased(Store(tmp_path)):
        pass
    with pytest.raises(RecipeError, match="is not a store"):
        gc(Store(tmp_path), 0)
    assert snapshot(tmp_path) == ["work", "work/thesis.tex"]


WRITES = {
    "lease": lambda store: leased(store).__enter__(),
    "log": lambda store: store.log(key(9)),
    "lock": lambda store: store.lock(key(9)),
    "scratch": lambda store: store.scratch(key(9)),
    "remember": lambda store: store.remember("a", key(9)),
}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("write", WRITES)
def test_a_store_that_cannot_be_written(store: Store, monkeypatch: pytest.MonkeyPatch, write: str, number: int) -> None:
    def refuse(self: Path, *rest: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    expected = TryAgain if number == errno.ENOSPC else RecipeError
    with pytest.raises(expected, match=str(store.root)):
        WRITES[write](store)


def test_a_read_only_store_serves_and_says_clearly_that_it_cannot_be_written(store: Store) -> None:
    with leased(store) as lease:
        commit(lease)
    script = f"""
        import os, sys
        from pathlib import Path
        from cpu_pipeline.core.errors import RecipeError
        from cpu_pipeline.store.lease import leased
        from cpu_pipeline.store.local import Store
        if os.getuid() == 0:
            os.setgid(65534); os.setuid(65534)
        store = Store(Path({str(store.root)!r}))
        assert store.find({key(1)!r}) is not None
        assert store.check(store.find({key(1)!r}))
        try:
            with leased(store):
                pass
        except RecipeError as error:
            sys.exit(0 if "is not writable" in str(error) else f"unclear: {{error}}")
        sys.exit("it was written to")
    """
    rooms = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    parents = [p for p in store.root.parents if p.stat().st_uid == os.getuid() and not p.stat().st_mode & 0o005]
    for path in rooms:
        path.chmod(0o555)
    (store.root / "store.lock").chmod(0o444)
    modes = {path: path.stat().st_mode for path in parents}
    try:
        for path in parents:
            path.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=HERE, capture_output=True, text=True)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
        for path in rooms:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_mount_and_what_is_free(number: int, tmp_path: Path) -> None:
    error = disk_error(OSError(number, "x"), tmp_path / "not" / "there")
    assert isinstance(error, TryAgain)
    mount = files.mount_of(tmp_path)
    assert os.path.ismount(mount)
    assert f" on {mount} (" in str(error)
    assert " bytes free) " in str(error)
    assert "\n" not in str(error)


def test_what_is_no_fault_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    assert disk_error(FileNotFoundError(errno.ENOENT, "x"), tmp_path) is None
    with pytest.raises(FileNotFoundError), files.writing(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "x")


def test_a_file_that_gets_shorter_on_the_disk_is_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def lose(handle: int) -> None:
        real(handle)
        if os.fstat(handle).st_size == len(FILES["model.onnx"]):
            os.ftruncate(handle, 5)

    with leased(store) as lease:
        monkeypatch.setattr(os, "fsync", lose)
        with pytest.raises(TryAgain, match=r"model.onnx is 5 bytes on the disk and was 140"):
            commit(lease)
        monkeypatch.undo()
    assert store.find(key(1)) is None
    assert verify(store) == []


def test_a_disk_that_is_found_full_only_when_synced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with leased(store) as lease:
        work = lease.work(key(1))
        fill(work, FILES)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TryAgain, match=rf"no space is left on \S+ \([\d,]+ bytes free\) for {store.root}"):
            lease.commit(key(1), {}, "onnx", {}, {}, work)
    assert store.find(key(1)) is None


def test_closed_folders_are_removed_too(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from cpu_pipeline.core.files import remove_tree
        if os.getuid() == 0:
            os.chdir(sys.argv[1]); os.chown(".", 65534, 65534); os.setgid(65534); os.setuid(65534)
        else:
            os.chdir(sys.argv[1])
        (Path("a") / "b").mkdir(parents=True)
        (Path("a") / "b" / "file").write_text("four")
        for name, mode in (("a/b/file", 0o000), ("a/b", 0o000), ("a", 0o500)):
            Path(name).chmod(mode)
        sys.exit(0 if remove_tree(Path("a")) == 4 and not Path("a").exists() else "it is still there")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_fills_up_during_a_commit_publishes_nothing(store: Store) -> None:
    with leased(store) as lease:
        commit(lease, 7, {"x": b"1"})
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        from cpu_pipeline.core.errors import TryAgain
        from cpu_pipeline.store.lease import leased
        from cpu_pipeline.store.local import Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store(Path({str(store.root)!r}))
        said = []
        for limit in range(0, 2000, 97):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            lease = leased(store)
            held = lease.__enter__()
            work = held.work({key(1)!r})
            (work / "model").write_bytes(b"m" * 50)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                held.commit({key(1)!r}, {{"stage": "x" * 900}}, "onnx", {{}}, {{}}, work)
            except TryAgain as error:
                said.append(str(error))
                assert Store(store.root).find({key(1)!r}) is None
            else:
                sys.exit(0 if len(said) > 3 and all("bytes free" in text for text in said) else f"unclear: {{said}}")
            finally:
                lease.__exit__(None, None, None)
        sys.exit("never succeeded")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.find(key(1)) is not None
    assert store.find(key(7)) is not None
    assert verify(store) == []
    assert list((store.root / "work").iterdir()) == []


# Crashes: F1

CRASH = """
import io, os, sys, traceback
from pathlib import Path
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store

KEY = "ab" * 32
base, power_cut = Path(sys.argv[1]), sys.argv[2] == "power cut"

def die(store):
    if power_cut:  # what was never synced is not on the disk
        for folder, _, files in os.walk(store.root):
            for name in files:
                if os.lstat(os.path.join(folder, name)).st_ino in unsynced:
                    os.truncate(os.path.join(folder, name), 0)
    os._exit(9)

def build(store, last):
    global unsynced
    left, unsynced = last, set()
    os.fsync = lambda handle: None
    def counted(owner, name):
        real = getattr(owner, name)
        def call(*args, **kwargs):
            nonlocal left
            if str(args[0]).startswith("/proc"):
                return real(*args, **kwargs)
            left -= 1
            if left < 0:
                die(store)
            result = real(*args, **kwargs)
            if owner is io and set(args[1]) & set("wax+"):
                unsynced.add(os.fstat(result.fileno()).st_ino)
            if name == "fsync":
                unsynced.discard(os.fstat(args[0]).st_ino)
            return result
        setattr(owner, name, call)
    for name in ("fsync", "rename", "replace", "chmod", "mkdir", "open", "unlink", "rmdir", "utime"):
        counted(os, name)
    counted(io, "open")
    with leased(store) as lease:
        if lease.find(KEY) is None:
            work = lease.work(KEY)
            (work / "sub").mkdir()
            (work / "sub" / "a").write_bytes(b"one")
            (work / "b").write_bytes(b"two")
            lease.commit(KEY, {"stage": "s"}, "onnx", {"n": 1}, {}, work)
        store.remember("recipe/step", KEY)

for last in range(1000):
    child = os.fork()
    if child == 0:
        try:
            build(Store(base / str(last)), last)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 9:
        sys.exit(code)
"""


@pytest.mark.parametrize("how", ["killed", "power cut"])
def test_a_build_that_dies_at_any_file_system_call_costs_only_time(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power is cut while this test looks
    done = subprocess.run([sys.executable, "-c", CRASH, tmp_path, how], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    served, wanted = 0, "ab" * 32
    roots = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    for root in roots:
        store = Store(root)
        found = store.find(wanted)
        served += found is not None
        assert found is None or (store.check(found) and found.facts == {"n": 1}), root
        assert verify(store) == [], root
        with leased(store) as lease:  # the next run
            if lease.find(wanted) is None:
                work = lease.work(wanted)
                fill(work, {"sub/a": b"one", "b": b"two"})
                lease.commit(wanted, {"stage": "s"}, "onnx", {"n": 1}, {}, work)
            store.remember("recipe/step", wanted)
        again = Store(root)
        assert again.check(again.find(wanted)), root
        assert again.last("recipe/step") == again.action(wanted)
        assert verify(again) == [], root
        assert list((root / "work").iterdir()) == list((root / "leases").iterdir()) == [], root
    assert len(roots) > 80 and 10 < served < 40


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_folders_are_synced_in_the_order_that_a_power_cut_demands(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path]] = []

    def logged(real: Callable[..., None]) -> Callable[..., None]:
        def move(source: Path, target: Path) -> None:
            calls.append(("move", Path(target)))
            real(source, target)

        return move

    monkeypatch.setattr(os, "rename", logged(os.rename))
    monkeypatch.setattr(os, "replace", logged(os.replace))
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(("sync", Path(f"/proc/self/fd/{handle}").readlink())))
    with leased(store) as lease:
        work = lease.work(key(1))
        fill(work, FILES)
        calls.clear()
        made = lease.commit(key(1), {}, "onnx", {}, {}, work)
    record = store.record_of(key(1))
    wanted = [
        ("sync", work / "model.onnx"),
        ("sync", work),
        ("sync", store.root / "objects"),  # which now has a shelf
        ("move", made.path),
        ("sync", made.path.parent),
        ("sync", store.root / "actions"),
        ("move", record),
        ("sync", record.parent),
    ]
    assert [call for call in calls if call in wanted] == wanted


def test_what_a_killed_build_left_is_swept_and_what_a_living_one_holds_is_not(store: Store) -> None:
    script = f"""
        import os, sys
        from pathlib import Path
        from cpu_pipeline.store.lease import leased
        from cpu_pipeline.store.local import Store
        lease = leased(Store(Path({str(store.root)!r})))
        work = lease.__enter__().work({key(1)!r})
        (work / "half").write_bytes(b"x" * 1000)
        (work / "sealed").mkdir()
        (work / "sealed").chmod(0o500)
        print(work, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    child = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    work = Path(child.stdout.readline().strip())
    with leased(store) as mine:
        assert (work / "half").exists()
        with leased(store):
            assert mine.folder.exists()
        child.kill()
        child.communicate()
        with leased(store) as other:
            assert not work.exists()
            assert other.swept == 1000
            assert mine.folder.exists()
    assert list((store.root / "work").iterdir()) == list((store.root / "leases").iterdir()) == []


# Many at once: F12

BUILDER = """
import json, os, sys, time
from pathlib import Path
from filelock import Timeout
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
store, count, keys = Store(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
digests = {}
with leased(store) as lease:
    todo = list(keys)
    while todo:
        for key in list(todo):
            found = lease.find(key)
            if found is None:
                try:
                    with store.lock(key).acquire(blocking=False):
                        found = lease.find(key)
                        if found is None:
                            handle = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                            os.write(handle, (key + "\\n").encode())
                            os.close(handle)
                            work = lease.work(key)
                            (work / "out").write_text(key[:8] * 1000)
                            found = lease.commit(key, {"stage": "s"}, "onnx", {}, {}, work)
                except Timeout:
                    continue
            assert store.check(found)
            digests[key] = found.digest
            todo.remove(key)
        time.sleep(0.01)
print(json.dumps(digests, sort_keys=True))
"""


def test_eight_processes_on_an_absent_store_build_each_key_once(store: Store, tmp_path: Path) -> None:
    keys = [key(number) for number in range(5)]
    command = [sys.executable, "-c", BUILDER, str(store.root), str(tmp_path / "count"), *keys]
    children = [
        subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    told = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0] * 8, [error for _, error in told if error]
    assert len({out for out, _ in told}) == 1
    assert sorted((tmp_path / "count").read_text().split()) == sorted(keys)
    assert verify(store) == []


def test_threads_of_one_process_share_a_lease(store: Store) -> None:
    with leased(store) as lease:
        made: dict[int, Artifact] = {}
        threads = [
            threading.Thread(target=lambda n=n: made.update({n: commit(lease, n, {"x": b"%d" % n})})) for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {n: lease.find(key(n)) for n in range(6)} == made


def test_a_store_lock_that_is_never_released_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_PATIENCE", 0.05)
    holder = FileLock(store.root / "store.lock")
    store.prepare()
    with holder, pytest.raises(TryAgain, match=r"store.lock is held for"):
        store.remember("a", key(1))
    store.remember("a", key(1))


def test_using_is_noted_even_when_times_cannot_be_set(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(store) as lease:
        commit(lease)
        os.utime(store.record_of(key(1)), (5, 5))
        before = time.time()
        lease.find(key(1))
        assert store.record_of(key(1)).stat().st_mtime >= before - 2

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "x")

        monkeypatch.setattr(os, "utime", refuse)
        assert lease.find(key(1)) is not None
