"""Calls of lua/spend.lua as a gateway makes them."""

import itertools

from measure.processes import ROOT
from measure.redis import command

MICRO = 1_000_000
# A bucket that refuses nobody by its burst, and comes back so slowly that the next call finds it in
# Redis, as in production, instead of having expired.
PER_MINUTE, BURST = 100, 1_000_000_000


def load_spend(connection):
    """Puts the script into a Redis; by what it returns it is called."""
    return connection.call("SCRIPT", "LOAD", (ROOT / "lua" / "spend.lua").read_text())


def spend_call(sha, sets):
    """EVALSHA of lua/spend.lua for one request of each set; a set is the keys of its buckets."""
    divisor = 60 * MICRO  # micro-units that leak per microsecond: PER_MINUTE / 60 seconds
    bucket = ["t", "e", 1, BURST, PER_MINUTE * MICRO, divisor]
    keys = list(itertools.chain.from_iterable(sets))
    several = int(len(set(keys)) < len(keys))
    # one live gateway, one kind of bucket, and all sets alike
    arguments = ["measured", 30 * MICRO, 1, several, 1, *bucket]
    arguments += [len(sets), 0, 0, len(sets[0]), *([1] * len(sets[0])), *([1] * len(sets))]
    return command("EVALSHA", sha, len(keys), *keys, *arguments)
