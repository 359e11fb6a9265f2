"""Protocols: bytes to requests, replies to bytes. Pure: no I/O, no clock, no logging."""
