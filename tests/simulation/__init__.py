"""A deterministic simulation: real code of all processes over a simulated kernel; see docs/reliability.md."""
