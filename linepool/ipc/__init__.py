"""What the processes share: the board, the channels and the status pipes."""
