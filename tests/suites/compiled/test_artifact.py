"""compile.aoti: what it compiled of a small BERT, looked at from every side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import CARD, Artifact, Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.compile import _inductor
from cpu_pipeline.stages.compile.aoti import CompileAoti

Built = Callable[..., Artifact]
QA = "question-answering"


ALONE = """
import sys
from pathlib import Path
import numpy as np
from cpu_pipeline.backends import pt2
session = pt2.load(Path(sys.argv[1]), None, 1)
answer = session({name: np.ones((1, 4), dtype=np.int64) for name in session.inputs})
assert answer["start_logits"].shape == (1, 4)
assert "transformers" not in sys.modules
"""


@pytest.fixture(scope="module")
def compiled(checkpoint: Built, job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Give a compiled BERT, made once: the compiler takes most of a quarter of a minute."""
    out, temporary = tmp_path_factory.mktemp("pt2"), tmp_path_factory.mktemp("tmp")
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(temporary))
    patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "of-the-user"))
    facts = CompileAoti().run({"model": checkpoint("bert", QA)}, out, job(QA))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(temporary / "of-the-user")
    patch.undo()
    # Importing Inductor makes its directory; nothing may be in it.
    assert [path.name for path in temporary.rglob("*")] in ([], ["of-the-user"]), "something was left behind"
    return Artifact("pt2", out, "", stored_facts(facts))


def test_it_answers_as_eager_torch_does(compiled: Artifact) -> None:
    parity = compiled.facts["parity"]
    assert parity["max_abs"] < 2e-5 and parity["nonfinite"] == 0 and parity["same_top"] == 1.0
    assert [1, 128] in parity["shapes"] and [4, 64] in parity["shapes"]
    assert compiled.facts["bytes"] == (compiled.path / "model.pt2").stat().st_size


def test_the_directory_is_complete_and_says_what_it_needs(compiled: Artifact, checkpoint: Built) -> None:
    source = checkpoint("bert", QA).path
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (compiled.path / name).read_bytes() == (source / name).read_bytes()
    assert not list(compiled.path.rglob("*.safetensors"))
    card = Card.read(compiled.path, "pt2")
    assert not host.missing(card.needs) and set(card.needs) >= {"x86_64", "avx2"}
    assert card.runtime["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert card.runtime["outputs"] == ["start_logits", "end_logits"]
    assert card.runtime["torch"] == torch.__version__
    assert card.runtime["limits"] == {"input_ids": 224, "token_type_ids": 2, "length": 512}


def test_the_library_tells_nothing_of_this_machine(compiled: Artifact) -> None:
    with zipfile.ZipFile(compiled.path / "model.pt2") as archive:
        assert not [name for name in archive.namelist() if name.endswith(".cpp")]
        library = archive.read(f"model/{pt2.LIBRARY}")
    for trace in (b"site-packages", b" at 0x", b"/tmp/", str(Path(torch.__file__).parent).encode()):
        assert trace not in library, trace
    at = int.from_bytes(library[32:40], "little")
    headers = [library[at + 56 * i : at + 56 * (i + 1)] for i in range(int.from_bytes(library[56:58], "little"))]
    (stack,) = (header for header in headers if header[:4] == (0x6474E551).to_bytes(4, "little"))
    assert not stack[4] & 1, "an executable stack, which newer C libraries refuse"


def test_a_process_needs_torch_alone_and_leaves_nothing(compiled: Artifact, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(hf.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", ALONE, compiled.path], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_what_the_embeddings_do_not_hold_is_an_error(compiled: Artifact, job: Callable[..., Job]) -> None:
    session = job(QA).load(compiled)
    given = {name: np.ones((2, 5), dtype=np.int64) for name in session.inputs}
    assert session(given)["end_logits"].dtype == np.float32
    for name, value in (("input_ids", 224), ("input_ids", -1), ("token_type_ids", 2)):
        with pytest.raises(StageFailed, match=f"{name}: the compiled model takes numbers from 0 to"):
            session({**given, name: np.full((2, 5), value)})
    with pytest.raises(StageFailed, match="513 tokens: the compiled model takes 512"):
        session({name: np.ones((1, 513), dtype=np.int64) for name in session.inputs})


def test_threads_reach_torch(compiled: Artifact) -> None:
    before = torch.get_num_threads()
    try:
        pt2.load(compiled.path, None, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def copy_of(compiled: Artifact, path: Path, **changes: object) -> Path:
    shutil.copytree(compiled.path, path)
    said = json.loads((path / CARD).read_text())
    said["needs"] = changes.pop("needs", said["needs"])
    said["runtime"] |= changes
    (path / CARD).write_text(json.dumps(said))
    return path


def test_another_processor_and_another_torch_are_refused(compiled: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match="compiled for sve2, which this CPU lacks"):
        pt2.load(copy_of(compiled, tmp_path / "cpu", needs=["x86_64", "sve2"]), None, 1)
    with pytest.raises(BackendMissing, match=r"compiled with torch 2\.12\.0\+cpu, but torch"):
        pt2.load(copy_of(compiled, tmp_path / "torch", torch="2.12.0+cpu"), None, 1)
    pt2.load(copy_of(compiled, tmp_path / "same", torch=torch.__version__.partition("+")[0]), None, 1)


def test_a_cut_library_is_not_opened(compiled: Artifact, tmp_path: Path) -> None:
    path = copy_of(compiled, tmp_path / "cut")
    whole = (path / "model.pt2").read_bytes()
    (path / "model.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageFailed, match="not a valid compiled model"):
        pt2.load(path, None, 1)
    (path / "model.pt2").write_bytes(whole[:5000] + b"\0\1\2\3" + whole[5004:])
    with pytest.raises(StageFailed, match=r"not a valid compiled model.*CRC"):
        pt2.load(path, None, 1)


def test_a_difference_beyond_the_tolerance_fails(
    compiled: Artifact, checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(where: str, program: object, out: Path, *given: object, **options: object) -> str:
        shutil.copy(compiled.path / "model.pt2", out)
        return ""

    monkeypatch.setattr(_inductor, "compile_program", copied)
    with pytest.raises(StageFailed, match=r"compile\.aoti: answers differ from the original"):
        CompileAoti(tolerance=1e-12).run({"model": checkpoint("bert", QA)}, out, job(QA))
