"""What each run came to: written, read, indexed."""
