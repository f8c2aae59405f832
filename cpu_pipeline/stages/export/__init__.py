"""Write a checkpoint in a runtime's own format."""
