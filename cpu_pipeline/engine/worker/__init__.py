"""Run one step in a process of its own: both ends of the conversation."""
