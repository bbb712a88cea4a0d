-- The next slot of the upstream's pace (MONEY.md M27): GCRA without a burst, by this clock. Each replica has reserved one
-- slot at most, and uses it or loses it.
--
-- ARGV: prefix, what a slot takes, a pause from now on, the longest that may stand before us; all in microseconds. With a
-- pause nothing is reserved.
local key = ARGV[1] .. 'pace'
local interval, pause, longest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local free = tonumber(redis.call('GET', key)) or 0
-- Further away than all replicas together can have reserved: this clock was set back.
if free < now or (pause == 0 and free > now + longest) then
  free = now
end
local slot = free
if pause > 0 then
  free = math.max(free, now + pause)
else
  free = free + interval
end
if free > now then
  redis.call('SET', key, string.format('%.0f', free), 'PX', math.ceil((free - now) / 1000))
end
return slot - now
