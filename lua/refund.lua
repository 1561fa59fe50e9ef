--[[
Gives units back. What the time has taken away already is not given back twice: a bucket never falls below empty, and
units of a window that has rolled over are dropped.

KEYS      the buckets; one may occur several times
ARGV[1]   id of this gateway, the field of its requests in flight
then for each of KEYS
  kind      as for spend.lua: t, l, f, n, s, c
  units     to give back
  at_us     the store's time at which they were charged, as spend.lua replied it
  lease_us  by how much they were dated later (sliding_window), otherwise 0
  then the parameters of its kind as for spend.lua

Reply: the store's time in microseconds.
]]
local call, floor, ceil, format, match = redis.call, math.floor, math.ceil, string.format, string.match
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local MICRO, LARGEST = 1000000, 9007199254740991
local gateway = ARGV[1]
local texts = call('MGET', unpack(KEYS))
local states, order = {}, {}

local function ttl(until_us)
  local ms = ceil((until_us - now) / 1000)
  if ms < 1 then ms = 1 elseif ms > LARGEST / 1000 then ms = LARGEST / 1000 end
  return format('%d', ms)
end

-- level:ts, units:ts or current:previous:ts; nothing to do where it is not there or not ours
local function read_text(k, kind)
  local text, a, b, t = texts[k] or '', nil, 0, nil
  if kind == 'n' then
    a, b, t = match(text, '^(%d+):(%d+):(%d+)$')
  else
    a, t = match(text, '^(%d+):(%d+)$')
  end
  return t and { a = a + 0, b = b + 0, t = t + 0 }
end

-- date:total:ts of a log
local function entry(text)
  local date, total, ts = match(text or '', '^(%d+):(%d+):?(%d*)$')
  if not date then return { date = 0, total = 0, ts = 0 } end
  return { date = date + 0, total = total + 0, ts = ts == '' and date + 0 or ts + 0 }
end

-- The end of the log from the last entry before `date` on, read in chunks that grow.
local function read_log(key, date)
  local length = redis.pcall('LLEN', key)
  if type(length) ~= 'number' or length < 2 then return nil end
  local from, chunk = length, 4
  local log = { kept = {} }
  repeat
    from = from - chunk > 0 and from - chunk or 0
    chunk = chunk * 4
    local oldest = entry(call('LINDEX', key, from))
  until from == 0 or oldest.date < date
  for n, text in ipairs(call('LRANGE', key, from, -1)) do log.kept[n] = entry(text) end
  log.from = from
  return log
end

local function read_flight(key)
  local field = redis.pcall('HGET', key, gateway)
  if type(field) ~= 'string' then return nil end
  local units, expires = match(field, '^(%d+):(%d+)$')
  return expires and { units = units + 0, expires = expires + 0 }
end

-- start and end of the window of an instant; i: index of the period in ARGV
local function window(i, instant)
  local period = ARGV[i] + 0
  if period > 0 then return instant - instant % period, instant - instant % period + period end
  for b = i + 1, i + 3 do
    if instant < ARGV[b + 1] + 0 then return ARGV[b] + 0, ARGV[b + 1] + 0 end
  end
  return ARGV[i + 3] + 0, ARGV[i + 4] + 0
end

local parameters = { t = 3, l = 4, f = 2, n = 2, s = 2, c = 1 }
local back, dates, i = {}, {}, 1
for k, key in ipairs(KEYS) do
  local kind = ARGV[i + 1]
  local units, at, lease_us = ARGV[i + 2] + 0, ARGV[i + 3] + 0, ARGV[i + 4] + 0
  back[k] = { kind = kind, units = units, at = at, date = at + lease_us, i = i + 5 }
  if not dates[key] or dates[key] > at + lease_us then dates[key] = at + lease_us end
  i = i + 4 + parameters[kind]
  if kind == 'f' and ARGV[back[k].i + 1] == '0' then i = i + 4 end
end

for k, key in ipairs(KEYS) do
  if states[key] == nil then
    local kind = back[k].kind
    if kind == 's' then
      states[key] = read_log(key, dates[key]) or false
    elseif kind == 'c' then
      states[key] = read_flight(key) or false
    else
      states[key] = read_text(k, kind) or false
    end
    if states[key] then order[#order + 1] = { key = key, kind = kind } end
  end
end

-- units of one entry go; where it has none left, the entry goes
local function take_from_log(log, date, units, period)
  local kept = log.kept
  for n = 2, #kept do
    if kept[n].date >= date then
      local own = kept[n].total - kept[n - 1].total
      if units > own then units = own end
      for later = n, #kept do kept[later].total = kept[later].total - units end
      if units == own then table.remove(kept, n) end
      if not log.changed or n < log.changed then log.changed = n end
      log.period = period
      return
    end
  end
end

for k, key in ipairs(KEYS) do
  local state, b = states[key], back[k]
  if not state or b.units == 0 then
    -- nothing to do
  elseif b.kind == 't' or b.kind == 'l' then
    state.a = state.a - b.units * MICRO
    local numerator, denominator = ARGV[b.i + 1] + 0, ARGV[b.i + 2] + 0
    local whole = floor(state.a / numerator)
    state.ends = state.t + whole * denominator + ceil((state.a - whole * numerator) * denominator / numerator)
  elseif b.kind == 'f' or b.kind == 'n' then
    local start, stop = window(b.i + 1, state.t)
    if b.at >= start and b.at < stop then
      state.a = state.a > b.units and state.a - b.units or 0
      state.ends = b.kind == 'n' and stop + stop - start or stop
    end
  elseif b.kind == 's' then
    take_from_log(state, b.date, b.units, ARGV[b.i + 1] + 0)
  else
    state.units, state.changed = state.units - b.units, true
  end
end

for _, o in ipairs(order) do
  local key, kind, state = o.key, o.kind, states[o.key]
  if kind == 's' then
    local kept, changed = state.kept, state.changed
    if changed and #kept == 1 and state.from == 0 then
      call('DEL', key)
    elseif changed then
      call('LTRIM', key, 0, state.from + changed - 2)
      for n = changed, #kept do
        local new = kept[n]
        local text = format('%d:%d', new.date, new.total)
        if new.ts ~= new.date then text = text .. format(':%d', new.ts) end
        call('RPUSH', key, text)
      end
      call('PEXPIRE', key, ttl(kept[#kept].date + state.period))
    end
  elseif kind == 'c' then
    if state.changed and (state.units <= 0 or state.expires <= now) then
      call('HDEL', key, gateway)
    elseif state.changed then
      call('HSET', key, gateway, format('%d:%d', state.units, state.expires))
    end
  elseif state.ends then
    if state.a + state.b <= 0 or state.ends <= now then
      call('DEL', key)
    elseif kind == 'n' then
      call('SET', key, format('%d:%d:%d', state.a, state.b, state.t), 'PX', ttl(state.ends))
    else
      call('SET', key, format('%d:%d', state.a, state.t), 'PX', ttl(state.ends))
    end
  end
end
return now
