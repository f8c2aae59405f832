"""What a recipe may say: YAML read strictly, JSON Schema, models."""
