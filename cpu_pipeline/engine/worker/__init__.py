"""Run a step in a process of its own: the messages, and both ends of the pipe."""
