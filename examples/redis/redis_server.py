"""A Redis server with worker processes; see README.md."""

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

# Each module registers its commands when it is imported.
COMMANDS = (
    strings,
    hashes,
    lists,
    sets,
    sorted_sets,
    ranges,
    keyspace,
    server_commands,
)

if __name__ == "__main__":
    linepool.run(app)
