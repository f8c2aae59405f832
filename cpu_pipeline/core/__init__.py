"""What several parts of the package share. Imports nothing else of the package."""
