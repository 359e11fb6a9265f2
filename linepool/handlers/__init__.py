"""From a request's words to the call of a handler."""
