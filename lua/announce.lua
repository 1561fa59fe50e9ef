--[[
Says that this gateway is alive, and counts those that are.

KEYS[1]   sorted set of gateways, scored by the store's time in microseconds at which they were last heard of
ARGV[1]   id of this gateway
ARGV[2]   microseconds after which a gateway that was not heard of is gone; the same for all gateways

Reply: the store's time in microseconds, number of live gateways, this one included.
]]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ttl_us = ARGV[2] + 0

redis.call('ZADD', KEYS[1], string.format('%d', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now - ttl_us))
-- from before a clock stepped back
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%d', now + ttl_us), '+inf')
redis.call('PEXPIRE', KEYS[1], string.format('%d', math.ceil(ttl_us / 1000)))
return { now, redis.call('ZCARD', KEYS[1]) }
