"""The exporter: a process beside the workers that serves figures, probes and a page over HTTP."""
