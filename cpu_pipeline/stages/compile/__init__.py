"""Compile the model for the CPU it will run on; the answers stay the same."""
