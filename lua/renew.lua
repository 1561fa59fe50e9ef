--[[
Renews the requests this gateway has in flight: sets its field in each bucket to exactly what it holds.

KEYS      concurrency buckets, hashes of gateway -> units:expires in microseconds
ARGV[1]   id of this gateway
ARGV[2]   microseconds after which the field counts no more unless it is renewed again
ARGV[3..] the units this gateway holds, one number for each of KEYS; 0 removes the field,
          -1 keeps the units that are there

Reply: the store's time in microseconds.
]]
local call, format = redis.call, string.format
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gateway, permit_us = ARGV[1], ARGV[2] + 0

local units, left_ms, foreign = {}, {}, {}
for k, key in ipairs(KEYS) do
  units[k] = ARGV[k + 2] + 0
  left_ms[k] = call('PTTL', key)
  local value = redis.pcall('HGET', key, gateway)
  foreign[k] = type(value) == 'table'
  if units[k] < 0 then
    units[k] = type(value) == 'string' and tonumber(string.match(value, '^%d+')) or 0
  end
end
for k, key in ipairs(KEYS) do
  if units[k] > 0 then
    if foreign[k] then call('DEL', key) end
    call('HSET', key, gateway, format('%d:%d', units[k], now + permit_us))
    -- another gateway's field may live longer
    local ms = math.ceil(permit_us / 1000)
    if foreign[k] or left_ms[k] < ms then call('PEXPIRE', key, format('%d', ms)) end
  elseif not foreign[k] then
    call('HDEL', key, gateway)
  end
end
return now
