"""Runs in the master. It never interprets a client's bytes, and runs no handler after the start."""
