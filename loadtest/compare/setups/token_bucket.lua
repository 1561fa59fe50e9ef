-- The usual token bucket: tokens and the time they were counted at, in a hash.
--
-- KEYS[1]  the bucket
-- ARGV[1]  capacity in tokens
-- ARGV[2]  tokens that come back per second
-- ARGV[3]  tokens wanted
-- Reply: 1 or 0 for admitted or refused, and the whole tokens left.
local capacity, per_second, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'ts')
local tokens = tonumber(bucket[1]) or capacity
local ts = tonumber(bucket[2]) or now_ms
tokens = math.min(capacity, tokens + math.max(0, now_ms - ts) * per_second / 1000)

local admitted = 0
if tokens >= wanted then
  tokens = tokens - wanted
  admitted = 1
end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'ts', now_ms)
redis.call('PEXPIRE', KEYS[1], math.ceil((capacity - tokens) / per_second * 1000) + 1000)
return { admitted, math.floor(tokens) }
