"""System calls: one kind in each file. Used by the master, the workers and the parker."""
