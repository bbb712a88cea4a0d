-- The next slot of the upstream's pace (MONEY.md M27): GCRA without a burst, by this clock. Each replica has reserved one
-- slot at most, and uses it or loses it. Answers how far away it is, and what is left of a pause, before which there is none.
--
-- ARGV: prefix, what a slot takes, a pause from now on, the most that may be reserved before us, the longest pause; all in
-- microseconds. With a pause nothing is reserved.
local slots, pauses = ARGV[1] .. 'pace', ARGV[1] .. 'pause'
local interval, pause, longest, longest_pause = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function keep(key, text, till)
  if till > now then
    redis.call('SET', key, text, 'PX', math.ceil((till - now) / 1000))
  end
end

-- Further away than one may be: this clock was set back.
local over = tonumber(redis.call('GET', pauses)) or 0
if over < now or over > now + longest_pause then
  over = now
end
if pause > 0 then
  over = math.max(over, now + math.min(pause, longest_pause))
  keep(pauses, string.format('%.0f', over), over)
  return { over - now, over - now }
end

-- Until when slots are given away, and how long each took.
local free, each = tonumber(redis.call('GET', slots)) or 0, tonumber(redis.call('GET', slots .. '-each')) or interval
local first = math.max(over, now)
if each > interval and free > first then
  -- After a reload to a quicker pace those before us take no longer than we do.
  free = first + (free - first) * interval / each
end
if free < first or free > first + longest then
  free = first
end
keep(slots, string.format('%.0f', free + interval), free + interval)
keep(slots .. '-each', string.format('%.0f', interval), free + interval)
return { math.floor(free - now), over - now }
