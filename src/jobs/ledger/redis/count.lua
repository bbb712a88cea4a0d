-- How many entries stand in each state. What stands longer than its value can leaves here, whoever lost sight of it, and
-- so do teams that have nothing left.
--
-- ARGV: prefix, how many may leave each place, the states.
local prefix, most = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000)
local counts = {}
for number = 3, #ARGV do
  counts[number - 2] = 0
end
for _, team in ipairs(redis.call('ZRANGE', prefix .. 'teams', 0, -1)) do
  local entries = 0
  for number = 3, #ARGV do
    local key = prefix .. 'in:' .. ARGV[number] .. ':' .. team
    local held = redis.call('ZCARD', key)
    if held > 0 then
      local over = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, most)
      if #over > 0 then
        held = held - redis.call('ZREM', key, unpack(over))
      end
    end
    counts[number - 2] = counts[number - 2] + held
    entries = entries + held
  end
  if entries == 0 then
    redis.call('ZREM', prefix .. 'teams', team)
  end
end
return counts
