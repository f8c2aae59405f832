"""Documents beside a version: report, model card, bill of materials, provenance."""
