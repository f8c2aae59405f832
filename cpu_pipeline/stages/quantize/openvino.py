"""Store an OpenVINO model in 8 bits and compute in integers, through NNCF.

Smooth-quant: Xiao et al. 2022, arXiv:2211.10438. Bias correction: Nagel et al. 2019, arXiv:1906.04721.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from cpu_pipeline.backends import openvino
from cpu_pipeline.core import host, repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.figures import Note, Table
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages.quantize import _healing
from cpu_pipeline.stages.quantize._accuracy import Accuracy
from cpu_pipeline.stages.quantize._openvino_control import NncfControl
from cpu_pipeline.stages.quantize._openvino_variants import OpenvinoVariants

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Task

INT8 = ("i8", "u8")
CALIBRATED = frozenset(
    {"preset", "subset", "fast_bias_correction", "smooth_quant_alpha", "overflow_fix", "percentile", "accuracy"}
)
"""Options that mean nothing when weights alone are quantized."""
PASSES_ON = ("Convert", "Subtract", "Multiply", "Reshape")
"""What stands between an integer weight and the operation that uses it."""


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


class OpenvinoCalibration(Facts):
    """What activations' ranges were fixed from."""

    rows: Count
    """Rows of `data.calibration`."""
    rows_used: Count
    """Rows that gave a sequence."""
    samples: Count
    """Sequences."""
    tokens: Count
    """Tokens of these sequences."""


class OpenvinoQuantizeFacts(Facts):
    """What was quantized."""

    calibration: OpenvinoCalibration | None = None
    """With `mode: full` alone, as the next."""
    overflow_fix: str | None = None
    """NNCF's name of what keeps sums from overflowing."""
    fake_quantize: Count
    """Activations that are quantized."""
    int8_constants: Count
    """Weights in 8 bits."""
    int8_constants_by_operation: dict[str, Count]
    """Type of an operation -> number of its weights in 8 bits."""
    bytes_before: Count
    """Bytes of graph and weights before."""
    bytes: Count
    """Bytes of graph and weights now."""
    healing: _healing.HealingFacts | None = None
    """With `accuracy` alone: what stayed float for it."""


class QuantizeOpenvino(Stage):
    """Quantize an OpenVINO model to int8 with NNCF: all of it, calibrated on rows, or its weights alone."""

    facts_model: ClassVar = OpenvinoQuantizeFacts
    takes: ClassVar = {"model": {openvino.FORMAT}}
    reads: ClassVar = frozenset({"task", "target", "data.calibration?", "data.selection?"})
    packages: ClassVar = ("openvino", "nncf", "numpy")
    quantizes: ClassVar = True
    remedies: ClassVar = (
        "accuracy",
        "preset",
        "fast_bias_correction",
        "subset",
        "smooth_quant_alpha",
        "ignored_names",
        "ignored_types",
        "mode",
    )

    mode: Literal["full", "weights"] = "full"
    """`full` computes in int8, with ranges from `data.calibration`; `weights` stores int8 and computes in float."""
    preset: Literal["performance", "mixed"] = "mixed"
    """Activations symmetric around zero (`performance`), or asymmetric where their ranges are (`mixed`)."""
    subset: int = Field(default=300, ge=1)
    """Sequences to calibrate with, spread evenly over all that `data.calibration` gives."""
    fast_bias_correction: bool = True
    """Correct each bias alone; false corrects it on what the quantized layers before it give: slower and closer."""
    smooth_quant_alpha: float | None = Field(default=None, ge=-1, le=1)
    """Share (0-1) of the activations' outliers moved into weights; -1 moves none; left out, NNCF's 0.95."""
    ignored_names: tuple[str, ...] = ()
    """Operations to leave in float, by name."""
    ignored_types: tuple[str, ...] = ()
    """Operations to leave in float, by type, such as MatMul."""
    ignored_patterns: tuple[Annotated[str, AfterValidator(_regex)], ...] = ()
    """Operations to leave in float, by regular expressions that match the beginning of their names."""
    overflow_fix: Literal["auto", "enable", "disable", "first_layer"] = "auto"
    """Keep weights to 7 bits: `auto` does where the target lacks VNNI, whose older instructions overflow on 8."""

    percentile: float | None = Field(default=None, gt=50, lt=100)
    """Percentage of each activation's values that its range holds at either end; by default all, averaged over rows."""
    accuracy: Accuracy | None = None
    """Leave as few operators in float as keep this accuracy on `data.selection`."""

    @model_validator(mode="after")
    def _options_fit(self) -> QuantizeOpenvino:
        if self.smooth_quant_alpha is not None and -1 < self.smooth_quant_alpha < 0:
            raise ValueError("smooth_quant_alpha: 0 to 1, or -1 to switch it off")
        useless = sorted(CALIBRATED & self.model_fields_set) if self.mode == "weights" else []
        if useless:
            raise ValueError(f"{', '.join(useless)}: no use with `mode: weights`, which calibrates nothing")
        return self

    def gives(self) -> str:
        """Name the format."""
        return openvino.FORMAT

    def asks(self) -> Set[str]:
        """Ask for calibration rows, and the task that encodes them, where ranges are fixed from them."""
        chosen = {"data.selection"} if self.accuracy is not None else set[str]()
        return {"task", "target", "data.calibration"} | chosen if self.mode == "full" else set()

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say whether the task has the metric of `accuracy`."""
        return self.accuracy.misfits(task, model) if self.accuracy is not None else []

    def details(self, facts: OpenvinoQuantizeFacts) -> Sequence[Table | Note]:
        """Return what stayed float for `accuracy`."""
        return list(_healing.details(facts.healing)) if facts.healing is not None else []

    def host(self) -> Host:
        """Say that `overflow_fix: auto` and calibration follow the instruction set."""
        return "isa" if self.mode == "full" else "none"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load once what was written."""
        return frozenset({openvino.FORMAT})

    def run(self, inputs: Inputs, out: Path, job: Job) -> OpenvinoQuantizeFacts:
        """Quantize, count, write, and load what was written.

        Raises:
            StageFailed: nothing was quantized, or NNCF failed.
            RecipeError: there is nothing to calibrate on, or the ignored scope names an operation that the model lacks.
            BackendMissing: this machine's arithmetic overflows, and the target's does not.
            GateFailed: no set of operators in float keeps `accuracy`.
        """
        source = inputs["model"].path
        model = self._read(source)
        before, needs, facts = Card.read(source, openvino.FORMAT), set[str](), dict[str, Any]()
        if self.mode == "full":
            fix = self._overflow_fix(job.isa)
            samples, facts["calibration"] = self._calibration(source, model, job)
            if self.accuracy is not None and self.accuracy.method == "nncf":
                control = NncfControl(self.accuracy, source, job, before.runtime)
                model = self._quantize(model, samples, fix, job, compress=False, control=control)
                facts["healing"] = control.facts
            elif self.accuracy is not None:
                variants = self._variants(model, samples, before, fix, job)
                facts["healing"] = _healing.heal("quantize.openvino", variants, source, self.accuracy, job)
                model = variants.model(set(facts["healing"].floats))
            else:
                model = self._quantize(model, samples, fix, job)
            facts["overflow_fix"] = fix
            needs = set() if fix == "enable" else {host.VNNI}
        else:
            model = self._compress(model)
        facts |= count(model)
        if not facts["int8_constants"]:
            raise StageFailed("quantize.openvino: nothing was quantized; leave less in the ignored scope")
        openvino.write(model, out)
        repo_files.carry(source, out)
        Card(openvino.FORMAT, tuple(sorted({*before.needs, *needs})), before.runtime).write(out)
        if not host.missing(needs):
            job.load(Artifact(openvino.FORMAT, out, "", {}))
        return OpenvinoQuantizeFacts(**facts, bytes_before=_size(source), bytes=_size(out))

    @contextlib.contextmanager
    def variants(self, source: Path, folder: Path, job: Job) -> Iterator[OpenvinoVariants]:
        """Quantize once, and give the model with any operators left in float.

        Args:
            source: directory of the float model.
            folder: not used; everything is held in memory.
            job: as of `run`.

        Raises:
            RecipeError: weights alone are quantized: no operator computes in int8.
        """
        if self.mode != "full":
            raise RecipeError("quantize.openvino: with `mode: weights` no operator computes in int8; see `mode: full`")
        model, fix = self._read(source), self._overflow_fix(job.isa)
        samples, _ = self._calibration(source, model, job)
        yield self._variants(model, samples, Card.read(source, openvino.FORMAT), fix, job)

    def _variants(self, model: Any, samples: Sequence[Arrays], card: Card, fix: str, job: Job) -> OpenvinoVariants:
        original = model.clone()
        quantized = self._quantize(model, samples, fix, job, compress=False)
        return OpenvinoVariants(original, quantized, dict(card.runtime), job.task, job.threads)

    def _read(self, source: Path) -> Any:
        """Read the float model, and check the ignored scope."""
        openvino.check_files(source)
        model = openvino.runtime().Core().read_model(source / openvino.XML, source / openvino.BIN)
        self._check_scope(model)
        return model

    def _quantize(
        self,
        model: Any,
        samples: Sequence[Arrays],
        fix: str,
        job: Job,
        compress: bool = True,
        control: NncfControl | None = None,
    ) -> Any:
        seen = itertools.count()

        def told(sample: Arrays) -> Arrays:
            """Count the sequences; NNCF goes through them several times."""
            turn, number = divmod(next(seen), len(samples))
            job.progress(f"calibration sequences, pass {turn + 1}", number + 1, len(samples))
            return sample

        with _nncf() as nncf:
            from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, OverflowFix

            advanced = nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix(fix))
            if not compress:  # operators are set back to float while their weights are still floats
                advanced.backend_params["compress_weights"] = False
            if self.percentile is not None:
                advanced.activations_range_estimator_params = _percentile(self.percentile)
            if self.smooth_quant_alpha is not None:
                advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(matmul=self.smooth_quant_alpha)
            quantize = nncf.quantize if control is None else control.quantize
            return quantize(
                model,
                nncf.Dataset(samples, told),
                preset=nncf.QuantizationPreset(self.preset),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(samples),
                fast_bias_correction=self.fast_bias_correction,
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=self._scope(nncf),
                advanced_parameters=advanced,
            )

    def _compress(self, model: Any) -> Any:
        with _nncf() as nncf:
            return nncf.compress_weights(
                model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=self._scope(nncf)
            )

    def _scope(self, nncf: Any) -> Any:
        return nncf.IgnoredScope(
            names=list(self.ignored_names), types=list(self.ignored_types), patterns=list(self.ignored_patterns)
        )

    def _check_scope(self, model: Any) -> None:
        """Check that every part of the ignored scope is something in the model, before any calibration."""
        operations = [node for node in model.get_ordered_ops() if node.get_type_name() not in ("Constant", "Result")]
        names = sorted({node.get_friendly_name() for node in operations})
        types = sorted({node.get_type_name() for node in operations})
        for option, known in (("ignored_names", names), ("ignored_types", types), ("ignored_patterns", names)):
            for wanted in getattr(self, option):
                if wanted in known or (option == "ignored_patterns" and any(re.match(wanted, name) for name in known)):
                    continue
                near = difflib.get_close_matches(re.sub(r"[\\^$*+?()\[\]|]", "", wanted), known, 3, cutoff=0.3)
                raise RecipeError(
                    f"quantize.openvino: {option}: no operation is called {wanted!r}; "
                    f"near it: {', '.join(near or known[:3])}"
                )

    def _overflow_fix(self, isa: tuple[str, ...]) -> str:
        """Decide by the target; refuse to correct biases with arithmetic that overflows on this machine alone."""
        fix: str = self.overflow_fix
        if fix == "auto":
            fix = "disable" if host.has_vnni(isa or None) else "enable"
        if fix != "enable" and not host.has_vnni():
            raise BackendMissing(
                "quantize.openvino: this machine has no VNNI: its int8 sums overflow and would mislead the correction "
                "of biases; set `overflow_fix: enable`, or build where the target's instruction sets are"
            )
        return fix

    def _calibration(self, source: Path, model: Any, job: Job) -> tuple[list[Arrays], dict[str, int]]:
        """Encode the rows; return evenly spaced sequences, each alone and unpadded, and how many of what they are."""
        if job.task is None or "calibration" not in job.data:
            raise RecipeError("quantize.openvino: `mode: full` needs `data.calibration`, and a task to encode it")
        rows = job.task.read_rows(job.data["calibration"])
        features = job.task.encode(rows, source)
        if not features:
            raise RecipeError("quantize.openvino: `data.calibration` has no rows; calibration needs at least one")
        taken = min(self.subset, len(features))
        chosen = [features[i * len(features) // taken] for i in range(taken)]
        kinds, names = job.task.input_kinds(source), [port.get_any_name() for port in model.inputs]
        return [pad([feature], names, kinds) for feature in chosen], {
            "rows": len(rows),
            "rows_used": len({feature.row for feature in chosen}),
            "samples": taken,
            "tokens": sum(feature.length for feature in chosen),
        }


def _percentile(percentage: float) -> Any:
    """Return NNCF's way to take ranges from percentiles of each sequence, averaged over the sequences."""
    from nncf.quantization import range_estimator as ranges

    end = ranges.StatisticsCollectorParameters(
        ranges.StatisticsType.QUANTILE,
        ranges.AggregatorType.MEAN,
        quantile_outlier_prob=(100 - percentage) / 100,
    )
    return ranges.RangeEstimatorParameters(min=end, max=end)


def count(model: Any) -> dict[str, Any]:
    """Count what is integer: activations quantized (FakeQuantize), and int8 weights by the type of their user."""
    users: Counter[str] = Counter()
    fakes = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        fakes += kind == "FakeQuantize"
        if kind == "Constant" and node.get_element_type().get_type_name() in INT8:
            users.update(_users(node))
    return {
        "fake_quantize": fakes,
        "int8_constants": sum(users.values()),
        "int8_constants_by_operation": dict(sorted(users.items())),
    }


def _users(constant: Any) -> set[str]:
    """Name the types of the operations that an int8 constant is a weight of; a zero point is a weight of none."""
    found, waiting = set(), [constant]
    while waiting:
        for port in waiting.pop().output(0).get_target_inputs():
            node = port.get_node()
            if node.get_type_name() not in PASSES_ON:
                found.add(node.get_type_name())
            elif port.get_index() == 0:
                waiting.append(node)
    return found


@contextlib.contextmanager
def _nncf() -> Iterator[Any]:
    """Import NNCF without its telemetry; keep its progress bars off stdout, and its failures on one line."""
    openvino.runtime()
    with contextlib.redirect_stdout(io.StringIO()):
        import nncf

        # Its own handler writes to what stdout was on import; without one, warnings go to stderr as it is now.
        logger = logging.getLogger("nncf")
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
        logger.propagate = True
        broken = (nncf.ValidationError, nncf.InternalError, nncf.InvalidQuantizerGroupError, nncf.UnsupportedModelError)
        try:
            yield nncf
        except (*broken, RuntimeError, ValueError) as error:
            raise StageFailed(f"quantize.openvino: NNCF failed: {one_line(error)}") from error


def _size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (openvino.XML, openvino.BIN))
