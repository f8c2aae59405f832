"""Where the steps of a build run: the contract, and one module for each way."""
