"""quantize.pt2e for real: linear layers in int8, calibrated or not, beside float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, Card

Compiled = Callable[..., Artifact]


@pytest.mark.skipif(bool(host.missing(host.TARGETS["avx512"])), reason="bfloat16 needs AVX-512 here")
def test_calibrated_beside_bfloat16(compiled: Compiled) -> None:
    artifact = compiled("quantize.pt2e", "bert", dtype="bfloat16", samples=8)
    facts = artifact.facts
    assert facts["linear_layers"] == facts["quantized_linear_layers"] == 13
    assert facts["calibration"]["samples"] == 8 and facts["calibration"]["tokens"] > 80
    assert facts["compared"]["nonfinite"] == 0 and facts["compared"]["cosine_mean"] > 0.99
    assert facts["reduced_range"] is not host.has_vnni()
    assert (host.VNNI in Card.read(artifact.path, "pt2").needs) is host.has_vnni()


def test_dynamic_and_for_a_target_without_vnni(compiled: Compiled) -> None:
    facts = compiled("quantize.pt2e", "bert", "avx2", activations="dynamic").facts
    assert facts["quantized_linear_layers"] == 13 and facts["calibration"] == {"samples": 0, "tokens": 0}
    assert facts["reduced_range"] and facts["needs"] == list(host.TARGETS["avx2"])
    assert facts["compared"]["cosine_mean"] > 0.99
