"""Certificates and TLS contexts, made where workers are forked from. No connection is handled here."""
