--[[
Empties buckets and tells every gateway, in one step.

KEYS      the buckets
ARGV[1]   channel; the message is the keys, joined by a space

Reply: how many of them were there.
]]
local deleted = 0
for from = 1, #KEYS, 1000 do
  deleted = deleted + redis.call('DEL', unpack(KEYS, from, math.min(from + 999, #KEYS)))
end
redis.call('PUBLISH', ARGV[1], table.concat(KEYS, ' '))
return deleted
