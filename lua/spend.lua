--[[
Takes units from the buckets of one or more sets: from every bucket of a set that enforces, or from none.

Sets are decided one after the other; a later set sees what an earlier one took from the same bucket. Everything
is read, then decided, then written: one MGET for all strings, one write per bucket that was charged.

KEYS      the buckets of all sets, one after the other; a bucket may occur in several sets, not twice in one
ARGV[1]   id of this gateway, the field of its requests in flight
ARGV[2]   microseconds after which such a field counts no more unless it is renewed
ARGV[3]   share: live gateways
ARGV[4]   0: each of KEYS is another bucket; 1: a bucket may occur in several sets
ARGV[5]   how many kinds of bucket follow; requests differ in their keys much more than in their quotas, so each quota
          is written once. For each of them
    kind     t token_bucket, l leaky_bucket, f fixed_window, n sliding_window_counter, s sliding_window, c concurrency
    mode     e enforce; s shadow: never refuses, charged for as many granted requests as it has room for;
             f force: charged for all granted requests, but never beyond its capacity
    cost     units of one request; 0 is always allowed and changes nothing
    then, by kind
      t      burst, numerator, denominator: micro-units that leak per microsecond
      l      count, numerator, denominator, max_delay_us
      f      count, period_us; or count, 0, and the starts of the previous, the current and the next calendar
             window and the end of the next, microseconds
      n, s   count, period_us
      c      count
then the sets, in runs of those that are alike; for each run
  sets       how many
  extra      further requests of each that are wanted for a lease, 0: none. Granted only after all that wait, and at
             most floor(room left in requests / (4 * share))
  lease_us   sliding_window: where a lease was granted, units are dated that much later
  buckets    how many of KEYS belong to each set
  kinds      for each of these buckets the number of its kind, from 1
  requests   for each set, requests waiting; as many as fit are granted, in the order they arrived

Reply: a text of whole numbers. The store's time in microseconds, then for each set how many requests were granted, and for
each of its buckets its state after that, parted by colons, and, unless its mode is e, how many of the granted requests were
charged there:
  t   level in micro-units:ts
  l   level in micro-units:ts:delay of the first request in microseconds
  f   units:ts:0
  n   units of the current window:of the one before:ts
  s   units within the period:date of the newest entry (0: none):microseconds until one more request fits (0: it fits,
      or never will)
  c   units in flight:0:0
]]
local spending = true
-- what follows is shared with peek.lua
local call, floor, ceil, format, match = redis.call, math.floor, math.ceil, string.format, string.match
local KEYS, ARGV = KEYS, ARGV -- a global is looked up at each use
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local MICRO, STEPS, LARGEST, huge = 1000000, 1048576, 9007199254740991, math.huge
local reply, r = { unpack(KEYS) }, 1 -- words; as many as it gets at least
reply[1] = format('%d', now)
local texts -- of all keys: what MGET answered, then what token buckets have become
local states, dirty, buckets -- of other kinds: by key; those to be written; by index of KEYS
-- Token buckets are most of all, so what they need is in lists instead of tables of their own, and of one size from the
-- beginning: where[j] is the index at which the bucket of j occurred first, if it may occur in several sets; texts,
-- levels, stamps and ends are by that index, bases, the levels before they are charged, and fits by j.
local firsts, where, fits
local levels, stamps, ends, bases = { unpack(KEYS) }, { unpack(KEYS) }, { unpack(KEYS) }, { unpack(KEYS) }
local charged, n_charged = { unpack(KEYS) }, 0
local at_now = ':' .. reply[1]

-- milliseconds from now to a time, rounded up
local function ttl(until_us)
  local ms = ceil((until_us - now) / 1000)
  if ms < 1 then ms = 1 elseif ms > LARGEST / 1000 then ms = LARGEST / 1000 end
  return format('%d', ms)
end

-- The kinds other than token_bucket. Functions cost time in every call, so these are made where they are needed:
-- look brings the state of a bucket, whose parameters follow ARGV[i], to now; the others are for states that are not
-- texts.
local read, look, settle, write

local function others()
  states, dirty, buckets = {}, {}, {}
  local gateway, permit_us = ARGV[1], ARGV[2] + 0

  -- The state of the bucket at j: a level or units, those of the window before, when. It is level:ts, units:ts or
  -- current:previous:ts; a foreign type or text is an empty bucket.
  read = function(j, kind)
    local a, b, t
    if kind ~= 's' and kind ~= 'c' then
      texts = texts or call('MGET', unpack(KEYS))
      local text = texts[j]
      if text and kind == 'n' then
        a, b, t = match(text, '^(%d+):(%d+):(%d+)$')
      elseif text then
        a, t = match(text, '^(%d+):(%d+)$')
      end
    end
    local s = { key = KEYS[j], kind = kind, a = 0, b = 0, t = 0, ends = false }
    if t then
      a, b, t = a + 0, (b or 0) + 0, t + 0
      if a <= LARGEST and b <= LARGEST and t <= LARGEST then s.a, s.b, s.t = a, b, t end
    end
    return s
  end

  local function leaked(numerator, denominator, elapsed)
    local whole = floor(elapsed / denominator)
    return whole * numerator + floor((elapsed - whole * denominator) * numerator / denominator)
  end

  local function look_leaky(b, s, i)
    local cost, count, max_delay = b.cost, ARGV[i + 1] + 0, ARGV[i + 4] + 0
    local numerator, denominator = ARGV[i + 2] + 0, ARGV[i + 3] + 0
    local level, ts = s.a, s.t
    local later = ts > now and ts or now
    local delay = 0
    if level > 0 then
      local whole = floor(level / numerator)
      delay = ts + whole * denominator + ceil((level - whole * numerator) * denominator / numerator) - now
      if delay < 0 then delay = 0 elseif delay > LARGEST then delay = LARGEST end
      level = level - leaked(numerator, denominator, later - ts)
      if level < 0 then level = 0 end
    end
    -- the first waits for what is there, each further one for that and for those before it
    local fit, spare = 0, max_delay - (later - now)
    if cost <= count and delay <= max_delay then
      local behind = leaked(numerator, denominator, spare) - level
      fit = 1
      if behind > 0 and cost > 0 then fit = 1 + floor(behind / (cost * MICRO)) end
    end
    b.base, b.when, b.step, b.fit, b.third = level, later, cost * MICRO, fit, delay
    b.room = leaked(numerator, denominator, max_delay) + MICRO - level
    b.numerator, b.denominator = numerator, denominator
  end

  local function look_fixed(b, s, i)
    local count, period, ts = ARGV[i + 1] + 0, ARGV[i + 2] + 0, s.t
    local later = ts > now and ts or now
    local start, stop
    if period > 0 then
      start = later - later % period
      stop = start + period
    else
      local current, following = ARGV[i + 4] + 0, ARGV[i + 5] + 0
      if later < current then
        start, stop = ARGV[i + 3] + 0, current
      elseif later < following then
        start, stop = current, following
      else
        start, stop = following, ARGV[i + 6] + 0
        -- the gateway's clock is wrong by more than a window: keep the units for the length of one
        if stop <= later then stop = later + stop - start end
      end
    end
    local used = ts >= start and s.a or 0
    b.base, b.when, b.step, b.room, b.stop = used, later, b.cost, count - used, stop
  end

  local function look_counter(b, s, i)
    local count, period, ts = ARGV[i + 1] + 0, ARGV[i + 2] + 0, s.t
    local later = ts > now and ts or now
    local start = later - later % period
    local current, previous = 0, 0
    if ts >= start then
      current, previous = s.a, s.b
    elseif ts + period >= start then
      previous = s.a
    end
    -- the elapsed part of the window in steps, rounded down; in ticks that keep the products below 2^53
    local tick = 1
    while period / tick >= 4294967296 do tick = tick * 2 end
    local elapsed = floor(floor((later - start) / tick) * STEPS / ceil(period / tick))
    local used = previous * (STEPS - elapsed) + current * STEPS
    b.base, b.before, b.when, b.step = current, previous, later, b.cost
    b.room, b.stop = floor((count * STEPS - used) / STEPS), start + 2 * period
  end

  -- An exact log is a list. Its first element is the last entry that has left the window, the others are those inside,
  -- each `date:total`, total being all units ever taken up to it, so that the units between two entries are a
  -- difference; `date:total:ts` where they were dated ahead of ts, the time they were taken at.
  local function entry(text)
    local date, total, ts = match(text or '', '^(%d+):(%d+):?(%d*)$')
    if not date then return 0, 0, 0 end
    return date + 0, total + 0, ts == '' and date + 0 or ts + 0
  end

  -- tail: the newest entry and those added by this call; out: entries that left the window, to be dropped
  local function read_log(key)
    local head = redis.pcall('LRANGE', key, 0, 3)
    local log = { key = key, dates = {}, totals = {}, read = 0, out = 0, total = 0, ts = 0, tail = {} }
    log.exists = head.err ~= nil or #head > 0
    log.replace = head.err ~= nil or #head < 2
    if log.replace then return log end
    for n = 1, #head do log.dates[n], log.totals[n] = entry(head[n]) end
    log.read = #head
    local date
    date, log.total, log.ts = entry(call('LINDEX', key, -1))
    log.tail[1] = { date = date, total = log.total, ts = log.ts }
    return log
  end

  -- date and total of the nth element, read in chunks that grow
  local function element(log, n)
    while n > log.read do
      local chunk = call('LRANGE', log.key, log.read, log.read * 2)
      if #chunk == 0 then return LARGEST, log.total end
      for x = 1, #chunk do log.dates[log.read + x], log.totals[log.read + x] = entry(chunk[x]) end
      log.read = log.read + #chunk
    end
    return log.dates[n], log.totals[n]
  end

  local function look_log(b, s, i)
    local count, period = ARGV[i + 1] + 0, ARGV[i + 2] + 0
    local log = s.log or read_log(s.key)
    s.log = log
    local instant = log.ts > now and log.ts or now
    local newest = log.tail[#log.tail]
    local used, out = 0, log.out
    if not newest or newest.date + period <= instant then
      out = -1 -- nothing is inside
    elseif log.replace then
      used = log.total
    else
      while element(log, out + 2) + period <= instant do out = out + 1 end
      local _, before = element(log, out + 1)
      used = log.total - before
    end
    b.base, b.when, b.before, b.stop = used, instant, out, period
    b.step, b.room = b.cost, count - used
  end

  local function charge_log(b, s, units, lease_us)
    local log, instant = s.log, b.when
    if b.before < 0 then
      log.replace, log.out, log.total, log.tail = true, 0, 0, {}
    else
      log.out = b.before
    end
    local date, newest = instant + lease_us, log.tail[#log.tail]
    log.total, log.ts = log.total + units, instant
    if newest and newest.date >= date then
      newest.total, newest.ts, newest.changed, date = log.total, instant, true, newest.date
    else
      log.tail[#log.tail + 1] = { date = date, total = log.total, ts = instant, added = true }
    end
    b.before, b.base, s.ends = log.out, b.base + units, date + b.stop
  end

  -- microseconds until at most `target` units are inside: until the entry leaves after which no more are left
  local function retry_after(log, out, period, target)
    local low, high = out + 2, log.replace and 0 or call('LLEN', log.key)
    local found
    while low < high do
      local middle = low == out + 2 and low or floor((low + high) / 2)
      local date, total
      if middle <= log.read then
        date, total = log.dates[middle], log.totals[middle]
      else
        date, total = entry(call('LINDEX', log.key, middle - 1))
      end
      if log.total - total <= target then
        found, high = date, middle
      else
        low = middle + 1
      end
    end
    for n = 1, found and 0 or #log.tail do
      found = log.tail[n].date
      if log.total - log.tail[n].total <= target then break end
    end
    local wait = found + period - now
    return wait > 0 and wait or 0
  end

  local function report_log(b, s)
    local log, used = s.log, b.base
    local newest, count = log.tail[#log.tail], ARGV[b.third] + 0
    local retry = 0
    if b.cost > 0 and b.cost <= count and used + b.cost > count then
      retry = retry_after(log, b.before, b.stop, count - b.cost)
    end
    return used, newest and newest.date or 0, retry
  end

  local function write_log(s)
    local log, added = s.log, {}
    for _, new in ipairs(log.tail) do
      local text = format('%d:%d', new.date, new.total)
      if new.ts ~= new.date then text = text .. format(':%d', new.ts) end
      if new.added then added[#added + 1] = text elseif new.changed then call('LSET', log.key, -1, text) end
    end
    if log.replace then
      if log.exists then call('DEL', log.key) end
      call('RPUSH', log.key, '0:0', unpack(added))
    elseif #added > 0 then
      call('RPUSH', log.key, unpack(added))
    end
    if log.out > 0 then call('LTRIM', log.key, log.out, -1) end
    call('PEXPIRE', log.key, ttl(s.ends))
  end

  -- Requests in flight are a hash: gateway -> units:expires. Expired fields count for nothing.
  local function look_flight(b, s, i)
    local flight = s.flight
    if not flight then
      local fields = redis.pcall('HGETALL', s.key)
      flight = { key = s.key, total = 0, own = 0, until_us = 0, dead = {}, foreign = fields.err ~= nil }
      s.flight = flight
      for f = 1, #fields, 2 do
        local units, expires = match(fields[f + 1], '^(%d+):(%d+)$')
        expires = (expires or 0) + 0
        if expires > now then
          flight.total = flight.total + units
          if fields[f] == gateway then flight.own = units + 0 end
          if expires > flight.until_us then flight.until_us = expires end
        else
          flight.dead[#flight.dead + 1] = fields[f]
        end
      end
    end
    b.base, b.step, b.room = flight.total, b.cost, ARGV[i + 1] - flight.total
  end

  local function write_flight(s)
    local flight = s.flight
    local expires = now + permit_us
    if flight.foreign then call('DEL', flight.key) end
    if #flight.dead > 0 then call('HDEL', flight.key, unpack(flight.dead)) end
    call('HSET', flight.key, gateway, format('%d:%d', flight.own, expires))
    call('PEXPIRE', flight.key, ttl(flight.until_us > expires and flight.until_us or expires))
  end

  look = function(b, s, kind, i)
    if kind == 'l' then return look_leaky(b, s, i) end
    if kind == 'f' then return look_fixed(b, s, i) end
    if kind == 'n' then return look_counter(b, s, i) end
    if kind == 'c' then return look_flight(b, s, i) end
    if kind ~= 's' then error('unknown kind of bucket') end
    b.third = i + 1
    return look_log(b, s, i)
  end

  local function charge(b, s, units, lease_us)
    if s.kind == 's' then return charge_log(b, s, units, lease_us) end
    s.flight.total, s.flight.own = s.flight.total + units, s.flight.own + units
  end

  local function report(b, s)
    if s.kind == 's' then return report_log(b, s) end
    return s.flight.total, 0, 0
  end

  -- A bucket that is no token bucket: what is taken from it, and its part of the reply.
  settle = function(j, granted, lease_us)
    local b = buckets[j]
    local s, mode, taken, units = b.state, b.mode, 0, 0
    local kind = s.kind
    if spending then
      taken = granted
      if mode == 's' and fits[j] < taken then taken = fits[j] end
      units = taken * b.step
      if mode == 'f' and units > b.room then units = b.room > 0 and b.room or 0 end
    end
    if units > 0 then
      if not s.ends then dirty[#dirty + 1] = s end
      if kind == 'l' then
        local level, ts, numerator, denominator = b.base + units, s.t, b.numerator, b.denominator
        if ts < now then ts = now end
        local whole = floor(level / numerator)
        s.a, s.t = level, ts
        s.ends = ts + whole * denominator + ceil((level - whole * numerator) * denominator / numerator)
      elseif kind == 'f' or kind == 'n' then
        s.a, s.b, s.t, s.ends = b.base + units, b.before or 0, b.when, b.stop
      else
        s.ends = now
        charge(b, s, units, lease_us)
      end
    end
    local first, second, third = s.a, s.t, b.third or 0
    if kind == 's' or kind == 'c' then
      first, second, third = report(b, s)
    elseif kind == 'n' then
      second, third = s.b, s.t
    end
    r = r + 1
    reply[r] = format('%d:%d:%d', first, second, third)
    return taken
  end

  write = function(s)
    if s.kind == 's' then return write_log(s) end
    write_flight(s)
  end
end

local share, several, classes, i = ARGV[3] + 0, ARGV[4] ~= '0', {}, 5
if several then firsts, where = {}, {} end
for n = 1, ARGV[5] + 0 do
  local kind = ARGV[i + 1]
  local mode, cost = ARGV[i + 2], ARGV[i + 3] + 0
  i = i + 3
  local class
  if kind == 't' then
    class = {
      kind = kind, mode = mode, cost = cost, step = cost * MICRO, burst = ARGV[i + 1] * MICRO,
      numerator = ARGV[i + 2] + 0, denominator = ARGV[i + 3] + 0,
    }
    i = i + 3
  else
    class = { kind = kind, mode = mode, cost = cost, at = i }
    local numbers = 2
    if kind == 'l' then
      numbers = 4
    elseif kind == 'c' then
      numbers = 1
    elseif kind == 'f' and ARGV[i + 2] == '0' then
      numbers = 6
    end
    i = i + numbers
  end
  if mode ~= 'e' then fits = fits or {} end
  classes[n] = class
end

local k, keys = 0, #KEYS
while k < keys do
  local sets, wanted, lease_us, n = ARGV[i + 1] + 0, ARGV[i + 2] + 0, ARGV[i + 3] + 0, ARGV[i + 4] + 0
  local of = {}
  i = i + 4
  for b = 1, n do of[b] = classes[ARGV[i + b] + 0] end
  i = i + n
  for set = 1, sets do
    local requests, extra = ARGV[i + set] + 0, wanted
    local most = huge
    for b = 1, n do
      local class, j = of[b], k + b
      local kind, cost = class.kind, class.cost
      local fit
      if kind == 't' then
        local at = j
        if several then
          local key = KEYS[j]
          at = firsts[key] or j
          firsts[key], where[j] = at, at
        end
        local level, ts
        if at == j then
          texts = texts or call('MGET', unpack(KEYS))
          local text = texts[j]
          if text then level, ts = match(text, '^(%d+):(%d+)$') end
          if ts then level, ts = level + 0, ts + 0 end
          if not ts or level > LARGEST or ts > LARGEST then
            level, ts, texts[j] = 0, 0, '0:0'
          end
          levels[j], stamps[j], ends[j] = level, ts, false
        else
          level, ts = levels[at], stamps[at]
        end
        if level > 0 and now > ts then
          local numerator, denominator = class.numerator, class.denominator
          -- x - x % 1 is floor(x), without a call
          local elapsed = now - ts
          local whole = elapsed / denominator
          whole = whole - whole % 1
          local rest = (elapsed - whole * denominator) * numerator / denominator
          level = level - whole * numerator - (rest - rest % 1)
          if level < 0 then level = 0 end
        end
        fit = (class.burst - level) / class.step
        fit = fit - fit % 1
        bases[j] = level
      else
        if not look then others() end
        local key = KEYS[j]
        local s = states[key]
        if not s then
          s = read(j, kind)
          states[key] = s
        end
        local bucket = { state = s, mode = class.mode, cost = cost }
        look(bucket, s, kind, class.at)
        fit = bucket.fit or floor(bucket.room / bucket.step)
        if kind == 'l' or kind == 'c' then extra = 0 end
        buckets[j] = bucket
      end
      if cost == 0 then fit = huge elseif fit < 0 then fit = 0 end
      if class.mode == 'e' then
        if fit < most then most = fit end
      else
        fits[j] = fit
      end
    end

    local granted = most < requests and most or requests
    if extra > 0 and granted == requests then
      local more = floor((most - requests) / (4 * share))
      granted = granted + (more < extra and more or extra)
    end
    r = r + 1
    -- mostly all of them, and then the text is there already
    reply[r] = granted == requests and ARGV[i + set] or granted

    for b = 1, n do
      local class, j = of[b], k + b
      local mode, taken = class.mode, 0
      if class.kind == 't' then
        local at, units, base = several and where[j] or j, 0, bases[j]
        if spending then
          taken = granted
          if mode == 's' and fits[j] < taken then taken = fits[j] end
          units = taken * class.step
          if mode == 'f' and base + units > class.burst then units = class.burst > base and class.burst - base or 0 end
        end
        if units > 0 then
          local level, ts = base + units, stamps[at]
          if ts <= now then
            ts = now
            texts[at] = format('%d', level) .. at_now
          else
            texts[at] = format('%d:%d', level, ts)
          end
          if not ends[at] then
            n_charged = n_charged + 1
            charged[n_charged] = at
          end
          if several then levels[at], stamps[at] = level, ts end
          -- rounded up to milliseconds later, so fractions do not matter
          ends[at] = ts + level / class.numerator * class.denominator
        end
        r = r + 1
        reply[r] = texts[at]
      else
        taken = settle(j, granted, granted > requests and lease_us or 0)
      end
      if mode ~= 'e' then
        r = r + 1
        reply[r] = taken
      end
    end
    k = k + n
  end
  i = i + sets
end
for c = 1, n_charged do
  local at = charged[c]
  call('SET', KEYS[at], texts[at], 'PX', ttl(ends[at]))
end
for d = 1, dirty and #dirty or 0 do
  local s = dirty[d]
  local kind = s.kind
  if kind == 'n' then
    call('SET', s.key, format('%d:%d:%d', s.a, s.b, s.t), 'PX', ttl(s.ends))
  elseif kind == 's' or kind == 'c' then
    write(s)
  else
    call('SET', s.key, format('%d:%d', s.a, s.t), 'PX', ttl(s.ends))
  end
end
return table.concat(reply, ' ')
