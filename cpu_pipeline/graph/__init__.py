"""From a recipe and its pipeline to a checked plan."""
