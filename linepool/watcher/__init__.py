"""The watcher: tells the master which files of the app have changed, during development."""
