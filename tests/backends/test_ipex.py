"""ipex: what can be said without IPEX; tests/suites/environments/ipex runs modules."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpu_pipeline.backends import ipex as backend
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed

TASK = SimpleNamespace(outputs=("logits",))
RUNTIME = {"inputs": ["input_ids"], "outputs": ["logits"]}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Give a folder whose model.pt has the members of a TorchScript archive, and nothing in them."""
    Card("ipex", backend.NEEDS["float32"], RUNTIME).write(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/m.py", ".data/version", "version"):
            archive.writestr(f"model/{name}", b"")
    return tmp_path


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a CPU with nothing newer than AVX2."""
    monkeypatch.setattr(host, "isa", lambda: host.TARGETS["avx2"])


def test_without_ipex_it_says_how_to_make_the_environment(artifact: Path) -> None:
    with pytest.raises(
        BackendMissing, match=r"intel_extension_for_pytorch.*not installed.*`cpu-pipeline env create ipex`"
    ):
        backend.load(artifact, TASK, 1)


def test_an_ipex_that_does_not_fit_its_torch_is_named(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "intel_extension_for_pytorch"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package itself is never imported')")
    (tmp_path / "site" / "intel_extension_for_pytorch" / backend.LIBRARY).write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(BackendMissing, match="does not fit the torch beside it"):
        backend.load(artifact, TASK, 1)


def test_bfloat16_needs_avx512_and_float32_does_not(artifact: Path, old_cpu: None) -> None:
    with pytest.raises(BackendMissing, match="not installed"):
        backend.load(artifact, TASK, 1)
    Card("ipex", backend.NEEDS["bfloat16"], RUNTIME).write(artifact)
    with pytest.raises(BackendMissing, match=r"it needs avx512f, .*fuse it in float32"):
        backend.load(artifact, TASK, 1)


def test_a_cpu_that_ipex_would_exit_on_is_named_first(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "isa", lambda: ("aarch64", "asimd"))
    with pytest.raises(BackendMissing, match=r"IPEX needs x86_64, .*use export\.openvino"):
        backend.register(artifact)


def test_what_is_no_module_fails_before_anything_is_loaded(artifact: Path) -> None:
    (artifact / "model.pt").write_bytes(b"garbage")
    with pytest.raises(StageFailed, match=r"model.pt: not a valid TorchScript module"):
        backend.load(artifact, TASK, 1)
    (artifact / "model.pt").unlink()
    with pytest.raises(StageFailed, match="no such file"):
        backend.load(artifact, TASK, 1)


def test_the_card_must_fit(artifact: Path) -> None:
    with pytest.raises(StageFailed, match="the model gives logits, the task reads start_logits"):
        backend.load(artifact, SimpleNamespace(outputs=("start_logits",)), 1)
    Card("ipex").write(artifact)
    with pytest.raises(StageFailed, match="names no inputs and outputs"):
        backend.load(artifact, TASK, 1)


def test_usage_is_python_that_imports_ipex_first() -> None:
    code = ast.parse(backend.usage("out/model", TASK))
    assert ast.unparse(code.body[0]) == "import intel_extension_for_pytorch"
