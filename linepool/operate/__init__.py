"""Operating a server: starting it, its settings, its logs, its control socket."""
