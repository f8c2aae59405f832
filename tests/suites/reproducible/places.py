"""A place where recipes are built: whose environment, which user, what language, in which order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import yaml
from conftest import ROOT

HERE = Path(__file__).parent
NOBODY = 65534
READ = "+dac_read_search"
"""The right to read what belongs to others: where Python itself lies in a folder that is only root's."""

TRY = "import cpu_pipeline, subprocess, sys; subprocess.run([sys.executable, '-c', 'import psutil'], check=True)"

Steps = Mapping[str, Any]
"""Step -> what `run --json` says of it."""


@dataclass(frozen=True)
class Place:
    """Where recipes are, and how the command is run there."""

    home: Path
    command: Sequence[str]
    env: Mapping[str, str]
    umask: int
    options: Sequence[str]

    def build(self, name: str) -> Steps:
        """Run a recipe and return its steps."""
        recipe = self.home / "recipes" / f"{name}.yaml"
        places = ["--store", str(self.home / "store"), "--out", str(self.home / "out")]
        done = subprocess.run(
            [*self.command, "-m", "cpu_pipeline", "run", str(recipe), *places, *self.options, "--json"],
            cwd=self.home, env=dict(self.env), umask=self.umask, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout.decode()[-2000:]}\n{done.stderr.decode(errors='replace')[-6000:]}"
        steps: Steps = json.loads(done.stdout)["steps"]
        return steps


def lay_out(home: Path, wide: Path, turned: bool) -> None:
    """Put recipes, models and rows into a place; `turned` reverses the order of the steps."""
    recipes = home / "recipes"
    recipes.mkdir(parents=True)
    source = ROOT / "recipes" / "quickstart"
    shutil.copytree(source / "model", recipes / "quickstart" / "model")
    for name in ("calibration.jsonl", "validation.jsonl"):
        shutil.copyfile(source / name, recipes / "quickstart" / name)
    shutil.copytree(wide, recipes, dirs_exist_ok=True)
    for path in HERE.glob("*.yaml"):
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        said["stages"] = said["stages"][::-1] if turned else said["stages"]
        (recipes / path.name).write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")


def write_wide(recipes: Path) -> None:
    """Write a model of one layer, as wide as BERT's, with pickled weights; and rows of many lengths."""
    import torch
    from safetensors.torch import load_file

    wide = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 1}
    folder = models.make("minilm", recipes / "wide", "sentence-similarity", **wide)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    words = models.WORDS * 2
    rows = [
        {"id": str(n), "sentence1": " ".join(words[:n]), "sentence2": " ".join(words[n:1:-1]), "score": n % 5}
        for n in range(8, 136, 8)
    ]
    (recipes / "wide.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def language() -> dict[str, str]:
    """Choose a locale that writes numbers with a comma, or failing that one that knows ASCII alone."""
    said = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    comma = [name for name in said if name.lower() in ("tr_tr.utf8", "de_de.utf8", "fr_fr.utf8")]
    if comma:
        return {"LC_ALL": comma[0], "LANG": comma[0]}
    return {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def somebody(home: Path, python: str) -> list[str]:
    """Return words before a command that run it as another user, who then owns the place; none where that cannot be."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    for folder in (home, *home.parents):
        if not folder.stat().st_mode & 0o001 and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(0o755)
    plain = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for words in (plain, [*plain, "--inh-caps", READ, "--ambient-caps", READ]):
        if subprocess.run([*words, python, "-c", TRY], capture_output=True, check=False).returncode == 0:
            # Not the virtual environment: its files are also those of the environment that it was made from.
            own = [home, *(home / name for name in ("home", "tmp")), *(home / "recipes").rglob("*"), home / "recipes"]
            for path in own:
                os.chown(path, NOBODY, NOBODY)
            return words
    return []
