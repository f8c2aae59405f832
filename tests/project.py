"""A small project of one tiny model to run the real command in, without torch: each command takes about a second."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "film", "day")
PATIENCE = 180.0
"""Seconds after which a test gives up waiting."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what `--json` printed."""
        return json.loads(self.out)

    @property
    def digests(self) -> dict[str, str]:
        return {name: step["digest"] for name, step in self.json["steps"].items()}

    def expect(self, code: int, *texts: str) -> CommandResult:
        """Check the exit code, that the texts are on stderr, and that nobody sees a traceback."""
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.out}\n{self.err}"
        for text in texts:
            assert text in self.err, f"{text!r} is not in:\n{self.err}"
        # A stage's own log, shown indented below its error, may hold one.
        assert not self.err.startswith("Traceback"), self.err
        assert "\nTraceback" not in self.err, self.err
        return self


class ProjectFixture:
    """A folder with a model, recipes, a store and artifacts, all of one test."""

    def __init__(self, home: Path, *, model: bool = True) -> None:
        self.home = home
        self.store, self.out, self.runs = home / "store", home / "artifacts", home / "runs.txt"
        self.env: dict[str, str] = {}
        home.mkdir(parents=True, exist_ok=True)
        if model:
            write_model(home / "model")

    def recipe(self, *stages: Mapping[str, Any], name: str = "small", **more: Any) -> Path:
        """Write a recipe of these stages; a stage is its id and options of faulty.copy, unless it says `use`."""
        steps = []
        for stage in stages:
            options = dict(stage)
            step = {key: options.pop(key) for key in ("id", "use", "from", "timeout") if key in options}
            step.setdefault("use", "faulty.copy")
            if step["use"].startswith("faulty.") and "runs" not in options:
                options["runs"] = str(self.runs)
            options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
            steps.append({**step, "with": options})
        checks = ("gate", "versus", "measure", "validate")
        named = {step["id"]: "a test" for step in steps if not any(check in step["use"] for check in checks)}
        if named and "unchecked" not in more:
            more["unchecked"] = named
        written = {"model": {"folder": "model"}, "task": "text-classification", "stages": steps, **more}
        path = self.home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
        return path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command: this clone and the plug-in found, nothing else of ours."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYT", "COV", "CPU_PIPELINE", "HF_"))}
        keep |= {"PYTHONPATH": os.pathsep.join([str(PLUGIN), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"}
        # Folders that tests do not share, for temporary files and for the lock of what measures.
        temporary, runtime = self.home.parent / "tmp", self.home.parent / "run"
        temporary.mkdir(exist_ok=True)
        runtime.mkdir(mode=0o700, exist_ok=True)
        own = {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(runtime)}
        return {**keep, "OMP_NUM_THREADS": "1", **own, **self.env, **more}

    def command(self, *arguments: object) -> list[str]:
        """Return the real command."""
        return [sys.executable, "-m", "cpu_pipeline", *map(str, arguments)]

    def run_arguments(self, recipe: Path, *more: object) -> list[object]:
        return ["run", recipe, "--store", self.store, "--out", self.out, *more]

    def start(self, *arguments: object, **env: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, so that signals for it do not reach the tests."""
        return subprocess.Popen(
            self.command(*arguments), cwd=self.home, env=self.environment(**env), text=True, encoding="utf-8",
            errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            # Tests that were started in the background of a shell ignore Ctrl-C, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def call(self, *arguments: object, **env: str) -> CommandResult:
        """Run a command to its end."""
        return ended(self.start(*arguments, **env))

    def run(self, recipe: Path, *more: object, **env: str) -> CommandResult:
        """Run `cpu-pipeline run RECIPE` with this bench's store and artifacts."""
        return self.call(*self.run_arguments(recipe, *more), **env)

    def built(self, recipe: Path, *more: object, **env: str) -> CommandResult:
        """Run a recipe that has to succeed, and return its JSON."""
        return self.run(recipe, "--json", *more, **env).expect(0)

    def verify(self) -> CommandResult:
        return self.call("store", "verify", "--store", self.store)

    def lines(self, begin: str = "") -> list[str]:
        """Return the lines that stages wrote into `runs` so far."""
        text = self.runs.read_text(encoding="utf-8") if self.runs.exists() else ""
        return [line for line in text.splitlines() if line.startswith(begin)]

    def leftovers(self) -> list[str]:
        """Name what a build that is over must not leave in the store or beside the artifacts."""
        found = [p for room in ("work", "leases", "scratch") for p in (self.store / room).glob("*")]
        found += [p for home in self.out.glob("*") for p in home.glob(".*")]
        return sorted(p.relative_to(self.home).as_posix() for p in found)


class InProcessProject(ProjectFixture):
    """Runs its commands in this process, which saves their start; steps run in children as always."""

    def call(self, *arguments: object, **env: str) -> CommandResult:
        """Run a command to its end, with the environment and the directory of a process of its own."""
        from cpu_pipeline.cli import main

        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace") for _ in range(2))
        variables = self.environment(**env)
        with (
            mock.patch.dict(os.environ, variables, clear=True),
            mock.patch.object(tempfile, "tempdir", variables["TMPDIR"]),
            contextlib.chdir(self.home),
            plugin_installed(version=int(variables.get("FAULTY_VERSION", "1"))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
            try:
                code = main([str(argument) for argument in arguments])
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
        return CommandResult(code, *texts)


@contextlib.contextmanager
def plugin_installed(version: int = 1) -> Iterator[None]:
    """Let this process find the plug-in of the tests, at a version of its stages, for as long as it lasts."""
    from cpu_pipeline import backends, sources, stages, tasks
    from cpu_pipeline.core import registry
    from cpu_pipeline.recipe import reader

    def forget() -> None:
        registry.added_entry_points.cache_clear()
        reader.the_schema.cache_clear()
        for kind in (backends, sources, stages, tasks):
            for known in (value for value in vars(kind).values() if isinstance(value, registry.Registry)):
                known._modules = None

    sys.path.insert(0, str(PLUGIN))
    forget()
    try:
        with mock.patch.object(stages.get("faulty.copy"), "version", version):
            yield
    finally:
        sys.path.remove(str(PLUGIN))
        forget()


def ended(process: subprocess.Popen[str], seconds: float = PATIENCE) -> CommandResult:
    """Wait for a command."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{out}\n{err}") from None
    return CommandResult(process.returncode, out, err)


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until something is true, and return it."""
    begin = time.monotonic()
    while not (found := true()):
        assert time.monotonic() - begin < seconds, "it never came true"
        time.sleep(0.02)
    return found


def pids_in(path: Path) -> list[int]:
    """Wait for the process ids that a stage writes into `path`."""
    until(path.exists)
    read: list[int] = json.loads(path.read_text(encoding="utf-8"))
    return read


def alive(pids: Sequence[int]) -> list[int]:
    """Name those that run; a zombie does not."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def family(process: subprocess.Popen[str]) -> list[int]:
    """Name every process below a command."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


@contextlib.contextmanager
def put_down(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a command that a failing test left running."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _write_weights(path: Path) -> None:
    """Write the weights of a BERT with a classifier as safetensors, without torch."""
    size, layer = 8, "bert.encoder.layer.0"
    square = (
        f"{layer}.attention.self.query", f"{layer}.attention.self.key", f"{layer}.attention.self.value",
        f"{layer}.attention.output.dense", f"{layer}.intermediate.dense", f"{layer}.output.dense", "bert.pooler.dense",
    )  # fmt: skip
    norms = ("bert.embeddings", f"{layer}.attention.output", f"{layer}.output")
    shapes = {
        "bert.embeddings.word_embeddings.weight": [len(WORDS), size],
        "bert.embeddings.position_embeddings.weight": [512, size],
        "bert.embeddings.token_type_embeddings.weight": [2, size],
        **{f"{name}.weight": [size, size] for name in square}, **{f"{name}.bias": [size] for name in square},
        **{f"{name}.LayerNorm.{part}": [size] for name in norms for part in ("weight", "bias")},
        "classifier.weight": [2, size], "classifier.bias": [2],
    }  # fmt: skip
    header, data = {}, b""
    for name, shape in shapes.items():
        values = array("f", [(7 * i % 11 - 5) / 10 for i in range(math.prod(shape))]).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_model(folder: Path) -> None:
    """Write a checkpoint by hand: a BERT of one small layer, a tokenizer of whole words."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": len(WORDS),
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "max_position_embeddings": 512, "pad_token_id": 0, "id2label": {"0": "bad", "1": "good"},
        "label2id": {"bad": 0, "good": 1},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_weights(folder / "model.safetensors")
    special = [
        {"id": n, "content": w, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for n, w in enumerate(WORDS[:4])
    ]  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {w: n for n, w in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
