"""A first recipe for a model and rows: on this machine or on the Hub."""
