"""The verbs of a recipe, one folder each."""
