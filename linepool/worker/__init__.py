"""Runs in the workers, the only processes that run handlers."""
