"""Small apps that the tests run."""
