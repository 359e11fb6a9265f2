"""From the schema of an app to the source of a module that calls it. Pure: no I/O, no clock."""
