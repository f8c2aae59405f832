"""What every stage that trains has in common: its options, the rows it learns, how it scores, what it remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import hf
from cpu_pipeline.core import host
from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.runtime.batching import answer, pad
from cpu_pipeline.stages import _checkpoint
from cpu_pipeline.stages._base import Count, Facts, Figure, Host, Inputs, Job, Stage
from cpu_pipeline.stages.train import _batches, _loop

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Feature, Row, Target, Task

BARS = "▁▂▃▄▅▆▇█"
EVALUATED = 16
"""Features in a batch while the model is scored."""


class Point(Facts):
    """A number at a step."""

    step: Count
    value: Figure


class TrainingFacts(Facts):
    """What was learned, and how it went."""

    rows: Count
    """Rows that were learned from."""
    targets: Count
    """Sequences, or pairs, with something to learn."""
    steps: Count
    """Steps of the optimizer."""
    precision: str
    """What matrix products were computed in."""
    metric: str = ""
    """What the selection rows were scored with."""
    scores: list[Point] = Field(default_factory=list)
    """The metric on the selection rows, at the step."""
    best: Count | None = None
    """The step whose weights were taken; None where there are no selection rows, and the last were."""
    curve: list[Point] = Field(default_factory=list)
    """Mean loss of the steps since the point before."""
    bytes: Count
    """Bytes of the weights."""


@dataclass(frozen=True)
class Lessons:
    """What is learned: features, and the targets made of them."""

    task: Task
    model: Path
    """Directory of the checkpoint that is trained; it has the tokenizer."""
    rows: Sequence[Row]
    features: Sequence[Feature]
    targets: Sequence[Target]

    @property
    def sizes(self) -> list[int]:
        """Count the tokens of each target, with the padding between its own features."""
        return [max(self.features[i].length for i in target.features) * len(target.features) for target in self.targets]


class Training(Stage, ABC):
    """Options and work that all stages share that train."""

    epochs: float = Field(default=3.0, gt=0)
    """How often each row is learned."""
    max_steps: int | None = Field(default=None, ge=1)
    """Most steps of the optimizer, whatever `epochs` is."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Largest learning rate of AdamW; it grows from 0 in the warm-up and then falls to 0 linearly."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate grows."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of matrices; biases and norms have none."""
    batch_tokens: int = Field(default=2048, ge=16)
    """Most tokens of a batch, with padding; rows of like length share one."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrix products are computed in; `auto` is bfloat16 on a CPU with instructions for it, else float32."""
    dropout: bool = True
    """Whether values are dropped, by the rates of config.json; training on a teacher's outputs does better without."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of the rows, of dropout and of new weights."""
    evaluations: int = Field(default=5, ge=1)
    """How often the model is scored on `data.selection`; the best of these wins, the untrained model included."""
    checkpoint_steps: int = Field(default=50, ge=1)
    """Steps between checkpoints: a training that was stopped goes on from the last one, to the same bytes."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it is trained; `cuda` needs a CUDA build of torch, and does not promise the same bytes twice."""

    facts_model: ClassVar = TrainingFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}}
    reads: ClassVar[Set[str]] = frozenset({"task", "data.training", "data.selection?"})
    packages: ClassVar = ("torch", "transformers", "safetensors", "numpy")
    # Checkpoints do not change what is learned; tests/stages/train holds this.
    unkeyed: ClassVar[Set[str]] = frozenset({"checkpoint_steps"})
    remedies: ClassVar = ("epochs", "learning_rate")

    def gives(self) -> str:
        """Name the format of the trained checkpoint."""
        return "hf"

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load with transformers."""
        return {"hf"}

    @abstractmethod
    def begin(self, inputs: Inputs, task: Task, out: Path) -> tuple[Any, Path]:
        """Load what is trained; return the module and a directory with its configuration and tokenizer."""

    @abstractmethod
    def lessons(self, inputs: Inputs, task: Task, model: Path, rows: Sequence[Row]) -> Lessons:
        """Make features and targets of the training rows."""

    @abstractmethod
    def loss(self, course: Batch, inputs: Inputs) -> Any:
        """Compute the mean loss of a batch."""

    def run(self, inputs: Inputs, out: Path, job: Job) -> TrainingFacts:
        """Train, from the last checkpoint in the scratch directory if there is one, and write the best checkpoint.

        Raises:
            RecipeError: no training row has a label, or the task's models cannot be trained.
            BackendMissing: there is no GPU that torch can use.
        """
        import torch

        if job.task is None:
            raise RecipeError("training: the recipe names no task; it says what is learned")
        task = job.task
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BackendMissing("device: cuda, but torch finds no GPU; install a CUDA build of torch, or say `cpu`")
        torch.set_num_threads(job.threads)
        torch.manual_seed(self.seed)
        home = job.scratch / "model"
        home.mkdir(parents=True, exist_ok=True)
        model, source = self.begin(inputs, task, home)
        model = model.requires_grad_(True).to(self.device)
        rows = task.read_rows(job.data["training"])
        job.progress("encoding rows", 0, len(rows))
        lessons = self.lessons(inputs, task, source, rows)
        if not lessons.targets:
            raise RecipeError("data.training: not one row has something to learn; name labelled rows")
        course = _loop.Course(
            steps=_batches.plan(
                lessons.sizes,
                budget=self.batch_tokens,
                accumulate=self.accumulate,
                epochs=self.epochs,
                most=self.max_steps,
                seed=self.seed,
            ),
            sizes=lessons.sizes,
            rate=self.learning_rate,
            warmup=self.warmup,
            decay=self.weight_decay,
            seed=self.seed,
            dropout=self.dropout,
            every=self.checkpoint_steps,
            evaluations=self.evaluations,
        )
        runner = Runner(model, lessons, self._precision(), self.device)
        selection = job.data.get("selection")
        metric = task.metrics_of(source)[0]
        judge = None if selection is None else Scorer(runner, task.read_rows(selection), metric)
        history = _loop.train(
            model,
            course,
            lambda numbers: self.loss(runner.batch(numbers), inputs),
            judge,
            job.scratch,
            job.progress,
            metric in task.lower_is_better,
        )
        return TrainingFacts(
            rows=len(rows),
            targets=len(lessons.targets),
            steps=history.step,
            precision=self._precision(),
            metric=metric if judge else "",
            scores=[Point(step=step, value=value) for step, value in history.scores],
            best=history.best,
            curve=[Point(step=step, value=round(value, 6)) for step, value in history.curve],
            bytes=_checkpoint.save(model, task, source, out),
        )

    def trial(self, rows: int) -> Any:
        """Return the stage with two steps."""
        return self.model_copy(update={"max_steps": 2, "evaluations": 1})

    def _precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if not host.missing(["avx512_bf16|amx_bf16|bf16"]) else "float32"

    def details(self, facts: TrainingFacts) -> Sequence[Table | Note]:
        """Draw the loss, and list the scores on the selection rows."""
        shown: list[Table | Note] = []
        if facts.curve:
            values = [point.value or 0.0 for point in facts.curve]
            text = f"Loss over {facts.steps} steps, from {values[0]:.3f} to {values[-1]:.3f}: {drawn(values)}"
            shown.append(Note(text))
        if facts.scores:
            rows = {
                f"step {point.step}" + (" (kept)" if point.step == facts.best else ""): [
                    Cell(f"{facts.metric} on selection rows", Quantity(point.value, digits=4))
                ]
                for point in facts.scores
            }
            shown.append(Table("training", rows))
        return shown


class Runner:
    """Runs the module on features, with gradients."""

    def __init__(self, model: Any, lessons: Lessons, precision: str, device: str) -> None:
        self.model, self.lessons, self.device = model, lessons, device
        self.kinds = lessons.task.input_kinds(lessons.model)
        self.inputs = hf.inputs_of(model, self.kinds)
        self._precision = precision

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch without gradients, as a session does."""
        import torch

        with torch.inference_mode():
            answer, _ = self.answer(arrays)
        return {name: value.cpu().numpy() for name, value in answer.items()}

    def answer(self, arrays: Arrays, **more: Any) -> tuple[dict[str, Any], Any]:
        """Run one batch; return the task's outputs in float32, and everything that the model gave."""
        import torch

        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        with torch.autocast(self.device, torch.bfloat16, enabled=self._precision == "bfloat16"):
            whole = self.model(**tensors, **more)
        outputs = hf.outputs_of(whole, self.lessons.task.outputs)
        return {name: value.float() for name, value in outputs.items()}, whole

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Gather the targets of these numbers."""
        targets = [self.lessons.targets[i] for i in numbers]
        places = [i for target in targets for i in target.features]
        return Batch(self, targets, places, [self.lessons.features[i] for i in places])


@dataclass(frozen=True)
class Batch:
    """Targets that are learned together, and their features."""

    runner: Runner
    targets: Sequence[Target]
    places: Sequence[int]
    """Numbers of the features, those of each target in order."""
    features: Sequence[Feature]

    @property
    def arrays(self) -> Arrays:
        """Pad the features."""
        return pad(self.features, self.runner.inputs, self.runner.kinds)

    @property
    def mask(self) -> Any:
        """Return 1 for real tokens and 0 for padding; None for inputs of another kind."""
        import torch

        if "attention_mask" not in self.runner.kinds:
            return None
        arrays = pad(self.features, ["attention_mask"], self.runner.kinds)
        return torch.from_numpy(arrays["attention_mask"]).to(self.runner.device)


class Scorer:
    """Scores the module on rows with the task's own metric."""

    def __init__(self, runner: Runner, rows: Sequence[Row], metric: str) -> None:
        self._runner, self._rows, self._metric = runner, rows, metric
        lessons = runner.lessons
        self._features = lessons.task.encode(rows, lessons.model)

    def __call__(self) -> float:
        task, model = self._runner.lessons.task, self._runner.lessons.model
        outputs = answer(self._runner, self._features, task, self._runner.kinds, EVALUATED)
        predictions = task.decode(self._rows, self._features, outputs, model)
        score = task.score(self._rows, {prediction["id"]: prediction for prediction in predictions})
        return float(score.metrics[self._metric])


def drawn(values: Sequence[float]) -> str:
    """Draw numbers as bars of eight heights, the least to the most."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(BARS[round((value - least) / span * (len(BARS) - 1))] for value in values)
