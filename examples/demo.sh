#!/bin/sh
# Start the sums server on a free port, send it a file of commands through netcat, show the replies
# and the pool, and stop the server.
set -eu
cd "$(dirname "$0")"
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

: >"$dir/log" # must exist before grep reads it
linepool run sums.py --bind 127.0.0.1:0 --workers 4 --control "$dir/control" 2>"$dir/log" &
server=$!
while ! grep -q '^ready' "$dir/log"; do
    kill -0 "$server" 2>/dev/null || { cat "$dir/log"; exit 1; }
    sleep 0.1
done
port=$(sed -n 's/^listening on 127.0.0.1://p' "$dir/log")

cat >"$dir/commands" <<'END'
ADD 2 3
mean 1 2 6
ADD 2 x
COUNTDOWN 3
HELP
END
echo "\$ nc -N 127.0.0.1 $port < commands"
cat "$dir/commands"
echo "--- replies"
nc -N 127.0.0.1 "$port" <"$dir/commands"
echo "--- \$ linepool status"
linepool status --control "$dir/control"
echo "--- \$ linepool stop"
linepool stop --control "$dir/control"
wait "$server"
server=
echo "--- the server's log"
cat "$dir/log"
