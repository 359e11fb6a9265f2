"""Runs in the master. It never reads a client's bytes, and runs no user code after the start."""
