"""The report of a build whose gates failed: which step lost it, which rows flipped, what to try next."""
