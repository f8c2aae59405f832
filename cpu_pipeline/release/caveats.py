"""What a reader of a version must know before trusting it: not judged, judged and waived, changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def caveats(manifest: Mapping[str, Any], output: str | None = None) -> list[str]:
    """Write each as one sentence of plain text, for terminal, status, report and card.

    Args:
        manifest: of the version.
        output: the one that a card is about; all when None.
    """
    found = []
    if reasons := manifest.get("withheld"):
        found.append(f"Not for service: {'; '.join(reasons)}.")
    found += [
        f"Unchecked: no gate judged the answers of `{name}` against the float model: {reason}"
        for name, reason in unchecked(manifest).items()
        if output in (None, name)
    ]
    found += [f"Waived: `{gate}` failed, and passes {why}" for gate, why in waived(manifest).items()]
    if (reason := manifest.get("promoted_anyway")) is not None:
        found.append(f"Promoted anyway, though --set changed the recipe ({', '.join(changed(manifest))}): {reason}")
    elif changed(manifest):
        found.append(f"Not the recipe as written: --set changed {', '.join(changed(manifest))}.")
    return found


def unchecked(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Map the outputs that no gate judged against the float model to the reasons that the recipe gives."""
    return dict(manifest.get("unchecked", {}))


def waived(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Map gates that failed and were waived to until when that is, and why."""
    return {
        gate: verdict["waived"]
        for gate, found in manifest.get("checks", {}).items()
        for verdict in found
        if verdict.get("waived")
    }


def changed(manifest: Mapping[str, Any]) -> list[str]:
    """List what --set changed of the recipe, as STEP.OPTION=VALUE."""
    return list(manifest.get("set", ()))
