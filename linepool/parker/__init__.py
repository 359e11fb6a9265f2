"""Runs in the parker, which holds idle connections. It runs no user code and knows no protocol."""
