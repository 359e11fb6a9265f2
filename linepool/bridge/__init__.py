"""The bridge: messages to and from other machines, through Valkey or Redis."""
