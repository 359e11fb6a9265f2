"""The processes: who does it. Each kind of system call lives in one file."""
