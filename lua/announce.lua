--[[
Says that this gateway is alive, and counts those that are. Adds up how often buckets have refused: gateways give most
refusals by themselves.

KEYS[1]   sorted set of gateways, scored by the store's time in microseconds at which they were last heard of
KEYS[2]   sorted set of buckets, scored by refusals; the thousand with the most are kept
ARGV[1]   id of this gateway
ARGV[2]   microseconds after which a gateway that was not heard of is gone; the same for all gateways
then for each bucket that has refused since this gateway was last heard of
  bucket    its key without the prefix
  refusals  how many

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
if #ARGV > 2 then
  -- what is there of a foreign type is left alone: nobody's request depends on it
  for a = 3, #ARGV, 2 do redis.pcall('ZINCRBY', KEYS[2], ARGV[a + 1], ARGV[a]) end
  redis.pcall('ZREMRANGEBYRANK', KEYS[2], 0, -1001)
  redis.pcall('PEXPIRE', KEYS[2], 3600000)
end
return { now, redis.call('ZCARD', KEYS[1]) }
