"""F7-F11, F13: full disks, flipped bits, cut records, lost objects, edited artifacts, odd places."""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import CommandResult, ProjectFixture, ended

from cpu_pipeline.store.local import Store

CHAIN = ({"id": "one"}, {"id": "two", "text": "two"})


def limited(bench: ProjectFixture, arguments: list[object], prepare: Callable[[], object]) -> CommandResult:
    """Run a command after `prepare`, which sets limits in its process."""
    return ended(
        subprocess.Popen(
            bench.command(*arguments), cwd=bench.home, env=bench.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: prepare() and None,
        )
    )  # fmt: skip


@pytest.mark.parametrize("most", [0, 200, 700, 1500, 3000])
def test_disk_full_at_any_file(bench: ProjectFixture, most: int) -> None:
    """F7: no file may grow past `most` bytes: 75, the mount is named, nothing half-written is served later."""
    recipe = bench.recipe(*CHAIN)
    arguments = bench.run_arguments(recipe)
    full = limited(bench, arguments, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    if most:
        full.expect(75, "largest size allowed on /", "run the same command again")
    else:  # Python finds no folder that it can write a temporary file into
        full.expect(75, "no folder for temporary files can be written to")
    assert not (bench.out / "small" / "latest").exists()
    if bench.store.exists():
        assert bench.verify().code == 0
    bench.built(recipe)
    assert bench.leftovers() == []


def test_disk_full_in_a_stage(bench: ProjectFixture) -> None:
    """F7: a stage that fills the disk is no failure of the stage."""
    recipe = bench.recipe({"id": "one", "act": "full"})
    bench.run(recipe).expect(75, "step `one`", "no space is left on /", "run the same command again")
    assert bench.verify().code == 0


def test_tiny_file_system(bench: ProjectFixture) -> None:
    """F7: a real file system of 2 MiB that a stage fills; once it has grown, the same command goes on."""
    bench.store = bench.home / "small disk" / "store"
    bench.store.parent.mkdir()
    recipe = bench.recipe({"id": "one"}, {"id": "two", "text": "two", "act": "fill"})
    disk = shlex.quote(str(bench.store.parent))
    run = shlex.join(bench.command(*bench.run_arguments(recipe)))
    verify = shlex.join(bench.command("store", "verify", "--store", bench.store))
    script = (
        f"mount -t tmpfs -o size=2m tmpfs {disk} || exit 99\n{run}; echo run $?\n{verify}; echo verify $?\n"
        f"mount -o remount,size=99m {disk}\n{run}; echo run $?\n{verify}; echo verify $?\n"
    )
    spaces = ["unshare", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    said = subprocess.run(
        [*spaces, "sh", "-c", script], cwd=bench.home, env=bench.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if said.returncode == 99 or "unshare" in said.stderr:  # no mounting here: a file-size limit stands in for it
        size = 1 << 20
        full = limited(
            bench, bench.run_arguments(recipe), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        )
        full.expect(75, "step `two`", "largest size allowed")
        return
    codes = [line for line in said.stdout.splitlines() if line.startswith(("run ", "verify "))]
    assert codes == ["run 75", "verify 0", "run 0", "verify 0"], said.stderr
    assert f"no space is left on {bench.store.parent}" in said.stderr
    assert len(bench.lines("began same")) == 1


def objects(bench: ProjectFixture, said: CommandResult) -> dict[str, Path]:
    return {name: bench.store / "objects" / digest[:2] / digest for name, digest in said.digests.items()}


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file, behind the back of everybody."""
    path.chmod(0o644)
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    path.chmod(0o444)


def test_bit_flip_is_found(bench: ProjectFixture) -> None:
    """F8: verify says 7; --repair sets it aside; the next run builds that step alone."""
    recipe = bench.recipe(*CHAIN)
    made = bench.built(recipe)
    flip(objects(bench, made)["one"] / "model.safetensors")
    found = bench.verify()
    assert found.code == 7
    assert made.digests["one"] in found.out
    assert bench.call("store", "verify", "--repair", "--store", bench.store).code == 0
    assert bench.verify().code == 0
    after = bench.built(recipe)
    assert after.json["built"] == ["one"]
    assert after.digests == made.digests


def test_bit_flip_in_an_input(bench: ProjectFixture) -> None:
    """F8: a step that needs a damaged object: a warning, it is built again, the step gets the right one."""
    made = bench.built(bench.recipe(*CHAIN))
    flip(objects(bench, made)["one"] / "model.safetensors")
    after = bench.built(bench.recipe(CHAIN[0], {"id": "two", "text": "other"}))
    assert "warning   one  its object in the store was damaged" in after.err
    assert after.json["built"] == ["one", "two"]
    assert after.digests["one"] == made.digests["one"]
    assert bench.verify().code == 0
    fresh = ProjectFixture(bench.home.parent / "elsewhere")
    cold = fresh.built(fresh.recipe(CHAIN[0], {"id": "two", "text": "other"}))
    assert cold.digests == after.digests


def test_bit_flip_in_an_output(bench: ProjectFixture) -> None:
    """F8: a damaged object is never put out: a warning, and it is built again."""
    recipe = bench.recipe(*CHAIN)
    made = bench.built(recipe)
    flip(objects(bench, made)["two"] / "tokenizer.json")
    shutil.rmtree(bench.out)
    after = bench.built(recipe)
    assert "warning   two  its object in the store was damaged" in after.err
    assert after.json["built"] == ["two"]
    assert bench.call("verify", bench.out / "small" / "latest").code == 0
    assert bench.verify().code == 0


def test_record_cut_anywhere(bench: ProjectFixture) -> None:
    """F9: a record cut at any length, emptied, or with anything in it but what was written, is a miss."""
    made = bench.built(bench.recipe({"id": "one"}))
    store = Store(bench.store)
    key = made.json["steps"]["one"]["key"]
    path = store.record_of(key)
    whole = path.read_bytes()
    action = store.action(key)
    assert action is not None
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert store.action(key) is None, length
        assert store.find(key) is None, length
    other = made.json["steps"]["model"]["key"]
    for text in (b"[]", b"null", b"{}", b'"', b"\xff" * 9, b"[" * 100_000, store.record_of(other).read_bytes()):
        path.write_bytes(text)
        assert store.find(key) is None, text[:20]
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.action(key) in (None, action), f"byte {place}"


@pytest.mark.parametrize("length", [0, 1, 300, -2])
def test_cut_record_is_built_again(bench: ProjectFixture, length: int) -> None:
    """F9: through the command: one step runs again, with the same result; looking at such a store is fine."""
    recipe = bench.recipe(*CHAIN)
    made = bench.built(recipe)
    path = Store(bench.store).record_of(made.json["steps"]["one"]["key"])
    path.write_bytes(path.read_bytes()[:length])
    bench.call("plan", recipe, "--store", bench.store).expect(0)
    bench.call("store", "list", "--store", bench.store).expect(0)
    assert bench.verify().code == 7
    after = bench.built(recipe)
    assert after.json["built"] == ["one"]
    assert after.digests == made.digests
    assert bench.verify().code == 0


def test_object_is_gone(bench: ProjectFixture) -> None:
    """F10: its record alone is a miss; its producer runs again, and nothing else."""
    recipe = bench.recipe(*CHAIN)
    made = bench.built(recipe)
    gone = objects(bench, made)["one"]
    gone.chmod(0o755)
    shutil.rmtree(gone)
    after = bench.built(recipe)
    assert "because its object is gone" in after.err
    assert after.json["built"] == ["one"]
    assert after.digests == made.digests


def test_edited_artifact(bench: ProjectFixture) -> None:
    """F11: the store is unaffected; the next run says which file and does not overwrite without --force."""
    recipe = bench.recipe({"id": "one"})
    bench.built(recipe)
    version = (bench.out / "small" / "latest").resolve()
    config = version / "one" / "config.json"
    was = config.read_bytes()
    config.write_text("{}", encoding="utf-8")
    (version / "notes.txt").write_text("mine", encoding="utf-8")
    bench.call("verify", version).expect(7, "notes.txt", "one/config.json")
    bench.run(recipe).expect(7, "was edited", "notes.txt", "one/config.json", "--force")
    assert config.read_text(encoding="utf-8") == "{}"
    assert bench.verify().code == 0
    after = bench.built(recipe, "--force")
    assert after.json["built"] == []
    assert config.read_bytes() == was
    assert not (version / "notes.txt").exists()
    assert bench.call("verify", version).code == 0
    assert bench.leftovers() == []


def test_store_is_a_file(bench: ProjectFixture) -> None:
    """F13: clear, and the file stays what it is."""
    bench.store.write_text("mine", encoding="utf-8")
    bench.run(bench.recipe({"id": "one"})).expect(2, f"{bench.store} is not a directory", "--store")
    assert bench.store.read_text(encoding="utf-8") == "mine"
    bench.store = bench.store / "below"
    bench.run(bench.recipe({"id": "one"})).expect(2, f"{bench.store} is not a directory, or is below a file")


def test_store_is_somebody_elses_folder(bench: ProjectFixture) -> None:
    """F13: a folder with other things in it is not taken for a store."""
    bench.store.mkdir()
    (bench.store / "thesis.txt").write_text("mine", encoding="utf-8")
    bench.run(bench.recipe({"id": "one"})).expect(2, "is not a store", "thesis.txt")
    assert [path.name for path in bench.store.iterdir()] == ["thesis.txt"]


def without_override() -> None:
    """Drop the capabilities by which root writes where it may not."""
    drop_from_bounding_set = 24
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


@pytest.fixture
def closed(bench: ProjectFixture) -> Iterator[ProjectFixture]:
    """A bench with a store of one step that nobody may write to."""
    bench.built(bench.recipe({"id": "one"}))
    folders = [bench.store, *(path for path in bench.store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield bench
    for folder in folders:
        folder.chmod(0o755)


def test_read_only_store(closed: ProjectFixture) -> None:
    """F13: looking works; a build says whose permissions to mend, without a traceback."""
    recipe = closed.recipe({"id": "one"})
    for looking in (["plan", recipe], ["store", "list"], ["store", "verify"], ["store", "stat"]):
        limited(closed, [*looking, "--store", closed.store], without_override).expect(0)
    limited(closed, closed.run_arguments(recipe), without_override).expect(2, str(closed.store), "not writable")


def test_places_with_spaces_and_unicode(tmp_path: Path) -> None:
    """F13: it just works, and comes to the same digests."""
    plain, odd = ProjectFixture(tmp_path / "plain"), ProjectFixture(tmp_path / "Ein Ort mit 空白, 'Quotes' & $signs")
    odd.store, odd.out = odd.home / "mein Läger", odd.home / "Ergebnis é"
    assert plain.built(plain.recipe(*CHAIN)).digests == odd.built(odd.recipe(*CHAIN)).digests
    assert odd.built(odd.recipe(*CHAIN)).json["built"] == []
    assert odd.verify().code == 0
