"""Executors run the steps of a build: the contract, and one module for each kind."""
