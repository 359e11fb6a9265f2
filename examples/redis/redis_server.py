"""A Redis whose workers are processes; see README.md beside this file."""

import hashes
import keyspace
import lists
import ranges
import server_commands
import sets
import sorted_sets
import strings
from application import app

import linepool

COMMANDS = (
    strings,
    hashes,
    lists,
    sets,
    sorted_sets,
    ranges,
    keyspace,
    server_commands,
)  # each registers its own

if __name__ == "__main__":
    linepool.run(app)
