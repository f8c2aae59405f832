"""What is put out is whole, says what it was made of, is found under `latest`, and is never overwritten unasked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from publishing import RECORDED

from cpu_pipeline import api
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import digest_file, digest_json
from cpu_pipeline.core.errors import GateFailed, RecipeError, Refused, StageFailed
from cpu_pipeline.engine.result import BuildResult, Damaged
from cpu_pipeline.release.latest import in_service
from cpu_pipeline.release.manifest import MANIFEST, edited, read_manifest
from cpu_pipeline.release.promotions import PROMOTIONS, promoted
from cpu_pipeline.release.publish import publish
from cpu_pipeline.release.tree import REPORT
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import Action

RECIPE = """\
about: {about}
model: {{folder: "{folder}"}}
task: text-classification
data:
  validation: {{file: rows.jsonl}}
stages:
  - {{id: float, use: export.onnx}}
  - {{id: int8, use: quantize.onnx}}
  - {{id: same, use: validate.agreement, from: {{candidate: int8, reference: model}}, with: {{cosine: 0.9}}}}
outputs: [float, int8]
unchecked: {{float: int8 is what is served}}
"""
FACTS: dict[str, dict[str, Any]] = {
    "same": {"max_abs": 0.1, "mean_abs": 0.01, "cosine_min": 0.99, "same_top": 1.0, "nonfinite": 0, "values": 8,
             "cosine_mean": 0.99, "shapes": [[4, 9]], "sequences": 4, "on": "rows"},
    "data.validation": {"rows": 24},
}  # fmt: skip
Maker = Callable[..., tuple[BuildResult, Store]]


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    """Pretend that a recipe was built: every node has an object in a store, of the files that are given."""

    def make(
        name: str = "toy", about: str = "A toy.", folder: str = "model", facts: Any = None, content: str = "weights"
    ) -> tuple[BuildResult, Store]:
        home = tmp_path / "recipes"
        home.mkdir(exist_ok=True)
        (home / f"{name}.yaml").write_text(RECIPE.format(about=json.dumps(about), folder=folder))
        plan = replace(api.plan(api.load_recipe(home / f"{name}.yaml")), unchecked={})
        built, store = BuildResult(plan), Store(tmp_path / "store")
        with leased(store) as lease:
            for node in plan.nodes.values():
                key = digest_json([name, node.id, content])
                work = lease.work(key)
                (work / "sub").mkdir()
                (work / "sub" / "file.txt").write_text(f"{node.id} {content}\n")
                said = {**RECORDED[node.use][0], **FACTS.get(node.id, {}), **(facts or {}).get(node.id, {})}
                run = {"seconds": 1.5, "peak_memory": 3 << 20, "when": 0}
                needed = {"stage": node.use, "packages": {"onnx": "1.23"}, "backends": {}}
                built.artifacts[node.id] = lease.commit(key, needed, node.gives, said, run, work)
                built.keys[node.id], built.records[node.id] = key, record_in(store, key)
                if verdicts := node.stage.judge(node.stage.parse_facts(built.artifacts[node.id].facts)):
                    built.verdicts[node.id] = verdicts
        return built, store

    return make


def record_in(store: Store, key: str) -> Action:
    record = store.action(key)
    assert record is not None
    return record


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def put(made: tuple[BuildResult, Store], out: Path, force: bool = False) -> Path:
    found = publish(*made, out, force=force)
    assert found is not None
    return found[0]


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_puts_out_the_outputs_the_checks_and_what_they_were_made_of(made: Maker, out: Path) -> None:
    built, store = made()
    path, fresh = publish(built, store, out) or (None, False)
    assert fresh and path is not None and path.parent == out / "toy"
    assert files(path) == {
        MANIFEST, REPORT, "provenance.json", "sbom.json", "float/sub/file.txt", "float/README.md",
        "int8/sub/file.txt", "int8/README.md", "checks/same/sub/file.txt",
    }  # fmt: skip
    manifest = read_manifest(path)
    assert manifest["version"] == path.name and re.fullmatch(r"[0-9a-f]{12}", path.name)
    assert manifest["outputs"] == {
        name: {"format": "onnx", "digest": built.artifacts[name].digest} for name in ("float", "int8")
    }
    assert manifest["recipe"]["model"] == {"folder": "model"}
    assert manifest["steps"].keys() == built.plan.nodes.keys()
    step = manifest["steps"]["int8"]
    assert step["key"] == built.keys["int8"] and step["inputs"] == {"model": "float"}
    assert step["use"] == "quantize.onnx" and step["options"]["mode"] == "dynamic"
    assert step["run"]["seconds"] == 1.5
    assert manifest["steps"]["same"]["inputs"] == {
        "candidate": "int8", "reference": "model", "data.validation": "data.validation"
    }  # fmt: skip
    finite, cosine = manifest["checks"]["same"]
    assert finite["passed"] and cosine == {
        "check": "cosine", "passed": True, "value": 0.99, "bound": 0.9, "outcome": "pass",
        "says": "cosine 0.99 over 4 sequences, at least 0.9 asked",
    }  # fmt: skip
    assert manifest["packages"]["onnx"]
    assert manifest["host"]["isa"] == list(host.isa())
    assert manifest["files"].keys() == files(path) - {MANIFEST}
    for name, (size, sha) in manifest["files"].items():
        assert (path / name).stat().st_size == size and digest_file(path / name) == sha
    assert edited(path) == []


def test_files_are_copies_that_nothing_else_names(made: Maker, out: Path) -> None:
    path = put(made(), out)
    for name in files(path):
        assert not (path / name).is_symlink() and (path / name).stat().st_nlink == 1
        assert os.access(path / name, os.W_OK)


def test_the_manifest_names_no_place_of_this_machine(made: Maker, out: Path, tmp_path: Path) -> None:
    path = put(made(), out)
    assert str(tmp_path) not in (path / MANIFEST).read_text() + (path / REPORT).read_text()


def test_the_same_build_is_the_same_version(made: Maker, out: Path) -> None:
    built, store = made()
    first = publish(built, store, out)
    assert first is not None and publish(*made(), out) == (first[0], False)
    other = put(made(content="other"), out)
    assert other != first[0] and first[0].is_dir()
    assert sorted(p.name for p in (out / "toy").iterdir()) == sorted([first[0].name, other.name, "latest", PROMOTIONS])


def test_says_by_whom_each_version_was_put_out(made: Maker, out: Path) -> None:
    first = put(made(), out)
    built, store = made(content="other")
    assert publish(built, store, out, by="refresh") is not None
    publish(*made(), out)
    publish(*made(), out)
    said = [(one.version == first.name, one.by) for one in promoted(out / "toy")]
    assert said == [(True, "run"), (False, "refresh"), (True, "run")]
    assert in_service(out / "toy") == first


def test_latest_names_the_version_that_was_put_out_last(made: Maker, out: Path) -> None:
    first = put(made(), out)
    latest = out / "toy" / "latest"
    assert latest.is_symlink() and latest.readlink() == Path(first.name)
    second = put(made(content="other"), out)
    assert latest.resolve() == second.resolve()
    put(made(), out)
    assert latest.resolve() == first.resolve()


def test_latest_is_a_file_where_links_cannot_be(made: Maker, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    first = put(made(), out)
    latest = out / "toy" / "latest"
    assert not latest.is_symlink() and latest.read_text() == first.name + "\n"
    second = put(made(content="other"), out)
    assert latest.read_text() == second.name + "\n"
    assert not list((out / "toy").glob(".*"))


def test_a_gate_that_fails_puts_nothing_out_and_keeps_the_earlier_version(made: Maker, out: Path) -> None:
    first = put(made(), out)
    built, store = made(content="other", facts={"same": {"cosine_min": 0.5}})
    with pytest.raises(GateFailed, match=r"step `same`: cosine 0.5 over 4 sequences, at least 0.9 asked"):
        publish(built, store, out)
    assert (out / "toy" / "latest").resolve() == first.resolve()
    assert sorted(p.name for p in (out / "toy").iterdir()) == sorted([first.name, "latest", PROMOTIONS])


def test_every_gate_that_fails_is_told(made: Maker, out: Path) -> None:
    built, store = made()
    built.verdicts["float"] = [Verdict("size", False, "too large")]
    built.verdicts["same"] = [Verdict("cosine", True, "fine"), Verdict("finite", False, "NaN")]
    with pytest.raises(GateFailed) as caught:
        publish(built, store, out)
    assert sorted(str(caught.value).splitlines()) == ["step `float`: too large", "step `same`: NaN"]
    assert not out.exists()


def test_a_failed_step_puts_nothing_out(made: Maker, out: Path) -> None:
    built, store = made()
    built.errors["float"] = StageFailed("step `float` (export.onnx): no")
    with pytest.raises(StageFailed, match="no"):
        publish(built, store, out)
    assert not out.exists()


def test_without_outputs_nothing_is_put_out(made: Maker, out: Path) -> None:
    built, store = made()
    built.plan = api.plan(api.load_recipe(built.plan.path), until="float")
    assert publish(built, store, out) is None
    assert not out.exists()


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda p: (p / "int8/sub/file.txt").write_text("int8 weightz\n"), "int8/sub/file.txt"),
    "longer": (lambda p: (p / "int8/sub/file.txt").write_text("longer"), "int8/sub/file.txt"),
    "added": (lambda p: (p / "int8/more.txt").write_text("more"), "int8/more.txt"),
    "removed": (lambda p: (p / "float/sub/file.txt").unlink(), "float/sub/file.txt"),
    "report": (lambda p: (p / REPORT).write_text("# All is well\n"), REPORT),
    "linked": (lambda p: relink(p / "int8/sub/file.txt"), "int8/sub/file.txt"),
    "pipe added": (lambda p: os.mkfifo(p / "int8/pipe"), "int8/pipe"),
    "pipe instead": (lambda p: repipe(p / "int8/sub/file.txt"), "int8/sub/file.txt"),
    "socket added": (lambda p: listen(p / "int8/socket"), "int8/socket"),
    "empty folder added": (lambda p: (p / "int8/empty/deeper").mkdir(parents=True), "int8/empty"),
    "link to a folder added": (lambda p: (p / "int8/more").symlink_to(p / "float"), "int8/more"),
    "manifest linked": (lambda p: relink(p / MANIFEST), MANIFEST),
    "manifest is a pipe": (lambda p: repipe(p / MANIFEST), MANIFEST),
    "manifest gone": (lambda p: (p / MANIFEST).unlink(), MANIFEST),
    "manifest cut": (lambda p: (p / MANIFEST).write_text((p / MANIFEST).read_text()[:100]), MANIFEST),
    "manifest empty": (lambda p: (p / MANIFEST).write_text("{}"), MANIFEST),
}


def relink(path: Path) -> None:
    aside = next(p for p in path.parents if p.name == "toy").with_name("aside")
    shutil.move(path, aside)
    path.symlink_to(aside)


def repipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def listen(path: Path) -> None:
    """Leave a socket at a path that may be longer than the system lets one name."""
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_is_not_overwritten_without_force(edit: str, made: Maker, out: Path) -> None:
    path = put(made(), out)
    change, name = EDITS[edit]
    change(path)
    assert name in edited(path)
    before = {f: (path / f).read_bytes() for f in files(path) if (path / f).is_file()}
    with pytest.raises(
        Refused, match=r"was edited since it was written \(.*; move it away, or overwrite it with --force"
    ):
        publish(*made(), out)
    assert {f: (path / f).read_bytes() for f in files(path) if (path / f).is_file()} == before
    assert publish(*made(), out, force=True) == (path, True)
    assert edited(path) == []
    assert (out / "toy" / "latest").resolve() == path.resolve()


def test_a_link_in_the_way_is_not_followed(made: Maker, out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "toy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is a symbolic link"):
        publish(*made(), out)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_latest_that_is_a_folder_stays_and_nothing_is_put_out(made: Maker, out: Path) -> None:
    first = put(made(), out)
    (out / "toy" / "latest").unlink()
    shutil.copytree(first, out / "toy" / "latest")
    with pytest.raises(Refused, match="latest is a folder"):
        publish(*made(content="other"), out)
    assert sorted(p.name for p in (out / "toy").iterdir()) == sorted([first.name, "latest", PROMOTIONS])


def test_a_version_that_is_a_link_is_not_written_through(made: Maker, out: Path, tmp_path: Path) -> None:
    version = put(made(), out)
    shutil.move(version, tmp_path / "elsewhere")
    version.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=f"{version} is a symbolic link"):
        publish(*made(), out, force=True)


def test_latest_names_a_folder_at_every_moment_while_an_edited_version_is_replaced(
    made: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = put(made(), out)
    (version / REPORT).write_text("edited")
    again = made()
    seen: list[Path | None] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            found = real(*arguments, **more)
            seen.append(in_service(out / "toy"))
            return found

        return call

    for name in ("unlink", "remove", "rename", "replace", "symlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    put(again, out, force=True)
    assert None not in seen and seen[-1] == version and len(set(seen)) == 2, "itself, and its stand-in"
    assert edited(version) == []


def test_a_name_that_is_no_folder_is_refused(made: Maker, out: Path) -> None:
    with pytest.raises(RecipeError, match="the file's name becomes a folder's"):
        publish(*made(name="a b"), out)


NASTY = "<script>alert(1)</script> ![x](http://evil/x.png) [y](javascript:alert(1)) | `code` **bold** # head"


def test_the_report_escapes_what_came_from_outside(made: Maker, out: Path) -> None:
    built, store = made(about=NASTY, folder="model `x` <b> | [l](http://evil)")
    built.verdicts["same"] = [Verdict("<i>check</i>", True, NASTY)]
    text = (put((built, store), out) / REPORT).read_text()
    markup = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for tag in ("<script", "<b>", "<i>", "<img", "<a ", "<strong", "<em"):
        assert tag not in markup
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert markup.count("<h1>") == 1
    [row] = [row for row in re.findall(r"<tr>.*?</tr>", markup, re.DOTALL) if "&lt;i&gt;check" in row]
    assert row.count("<td>") == 5


def test_the_report_says_what_was_checked_made_and_how_to_load_it(made: Maker, out: Path) -> None:
    path = put(made(), out)
    text = (path / REPORT).read_text()
    assert text.startswith(f"# toy {path.name}\n\nA toy.\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Made of", "Checks", "Steps", "Made with", "How to load"]
    assert "| data.validation | `rows.jsonl` (24 rows) | local, by content |" in text
    assert "| `same` | `int8` | cosine | passed |" in text.replace("\\", "")
    for name in ("float", "int8"):
        assert f"`{name}` (onnx):\n\n```python\n" in text
        code = text.split(f"`{name}` (onnx):\n\n```python\n")[1].split("```")[0]
        compile(code, "report", "exec")


def test_a_recipe_without_checks_says_so(made: Maker, out: Path) -> None:
    built, store = made()
    built.verdicts.clear()
    assert "This recipe has no check: nothing here is proved." in (put((built, store), out) / REPORT).read_text()


@pytest.mark.parametrize("node", ["int8", "same"])
def test_a_damaged_object_is_not_put_out(node: str, made: Maker, out: Path) -> None:
    """F8: an output, or the evidence of a gate, that is not what the store took in."""
    built, store = made()
    path = built.artifacts[node].path / "sub" / "file.txt"
    path.chmod(0o644)
    path.write_text(path.read_text().upper())
    with pytest.raises(Damaged, match=f"the object of `{node}` in the store was damaged; set aside"):
        publish(built, Store(store.root), out)
    assert list((out / "toy").iterdir()) == []


@pytest.mark.parametrize("node", ["model", "same"])
def test_no_version_is_published_without_the_record_of_a_step(node: str, made: Maker, out: Path) -> None:
    built, store = made()
    del built.records[node]
    with pytest.raises(KeyError, match=node):
        publish(built, store, out)
    assert not out.exists()


def test_a_version_is_described_by_the_records_of_its_build(made: Maker, out: Path) -> None:
    """What happens to the records in the store meanwhile changes nothing."""
    built, store = made()
    for key in built.keys.values():
        store.record_of(key).unlink()
    steps = read_manifest(put((built, store), out))["steps"]
    assert {step["run"]["seconds"] for step in steps.values()} == {1.5}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_a_version_is_on_the_disk_before_it_has_its_name(
    made: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, store = made()
    synced, real = list[str](), os.fsync

    def note(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    version = put((built, store), out)
    [work] = {path for path in synced if re.fullmatch(rf".*/\.{version.name}\.\d+\.[0-9a-f]{{8}}", path)}
    below = {path.removeprefix(f"{work}/") for path in synced if path.startswith(f"{work}/")}
    assert below == {p.relative_to(version).as_posix() for p in version.rglob("*")}
    assert synced.index(str(version.parent), synced.index(work)) > 0, "its name is written through, too"
