// memjs speaks the binary protocol only: the server closes the connection, and the client reports an error.
import assert from 'node:assert/strict'
import memjs from 'memjs'

const client = memjs.Client.create(process.env.MEMCACHED_SERVER, { retries: 0, timeout: 2 })
await assert.rejects(client.get('a'))
client.close()
process.exit(0)
