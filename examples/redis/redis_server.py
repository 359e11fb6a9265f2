"""A Redis server with worker processes; see README.md."""

import bitfields
import bits
import blocking
import databases
import dumping
import hashes
import hyperloglog
import keyspace
import lcs
import lists
import objects
import ranges
import scripting
import server_clients
import server_commands
import server_config
import server_info
import sets
import sorted_sets
import sorting
import stream_claims
import stream_groups
import stream_info
import stream_reads
import streams
import strings
from application import app

import linepool

# Each module registers its commands when it is imported.
COMMANDS = (
    strings,
    bits,
    bitfields,
    lcs,
    hyperloglog,
    hashes,
    lists,
    sets,
    sorted_sets,
    ranges,
    blocking,
    streams,
    stream_reads,
    stream_groups,
    stream_claims,
    stream_info,
    keyspace,
    sorting,
    objects,
    databases,
    dumping,
    scripting,
    server_clients,
    server_commands,
    server_config,
    server_info,
)

if __name__ == "__main__":
    linepool.run(app)
