#!/bin/sh
# Start the sums server on a free port, send it a file of commands through netcat, show the replies
# and the pool, and stop the server. Then put load on a server whose requests wait, and show how its
# pool grows, and shrinks when the clients have gone.
set -eu
cd "$(dirname "$0")"
dir=$(mktemp -d)
server=
helpers=
trap 'kill $helpers $server 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

serve() { # serve NAME TARGET OPTION ...: start a server and wait until it is ready; set server and port
    : >"$dir/$1" # must exist before grep reads it
    log=$dir/$1
    shift
    linepool run "$@" --bind 127.0.0.1:0 --control "$dir/control" 2>"$log" &
    server=$!
    while ! grep -q '^ready' "$log"; do
        kill -0 "$server" 2>/dev/null || { cat "$log"; exit 1; }
        sleep 0.1
    done
    port=$(sed -n 's/^listening on 127.0.0.1://p' "$log")
}

stop() { # stop the server, and wait until it has stopped
    linepool stop --control "$dir/control"
    wait "$server"
    server=
}

serve log sums.py --workers 4
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
stop
echo "--- the server's log"
cat "$log"

cat >"$dir/quotes.py" <<'END'
import time

import linepool

@linepool.handler
def quote(symbol: str) -> str:
    """Look up a price."""
    time.sleep(0.05)  # as long as a database takes
    return f"{symbol} 42.00"
END
echo
echo "--- a pool at work: \$ cat quotes.py"
cat "$dir/quotes.py"
set -- --workers 2:12 --max-spare 1 --shrink-window 1 --min-worker-age 1
echo "--- \$ linepool run quotes.py $*"
serve quotes.log "$dir/quotes.py" "$@"
: >"$dir/looks"
linepool top --lines --interval 0.25 --control "$dir/control" >"$dir/looks" &
helpers=$!
until grep -q workers=2 "$dir/looks"; do sleep 0.1; done
for client in 1 2 3 4 5 6 7 8; do # each asks again and again until it is killed
    yes "QUOTE client$client" | nc 127.0.0.1 "$port" >/dev/null &
    helpers="$helpers $!"
done
until grep -q 'busy=[78]' "$dir/looks"; do sleep 0.1; done
echo "--- 8 clients ask for quotes, again and again: \$ linepool top --once"
linepool top --once --control "$dir/control"
kill ${helpers#* }
until tail -n 1 "$dir/looks" | grep -q 'busy=0 workers=2'; do sleep 0.1; done
kill ${helpers%% *}
helpers=
echo "--- \$ linepool top --lines --interval 0.25, without some of its columns"
sed 's/^.*T\(.*\)Z name=.* \(busy=.*\) waiting_s=.* \(requests_per_s=[0-9.]*\) .*/\1 \2 \3/' "$dir/looks" | uniq -f 1
echo "--- what its log says of the pool"
stop >/dev/null
sed -n 's/^[^ ]*T\([^ ]*\) .*\(scaling pool.*\)/\1 \2/p' "$log"
