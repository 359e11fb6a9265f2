"""The loader: the process that has loaded the app, and forks the workers from it."""
