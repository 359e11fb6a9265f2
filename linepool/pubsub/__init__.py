"""Publish/subscribe between the connections of all workers."""
