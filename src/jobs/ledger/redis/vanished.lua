-- Entries whose values have left by themselves leave the indexes too, but for those that stand again. Answers which stand.
--
-- ARGV: prefix, how many states there are, the states, the names of the entries.
local prefix, first = ARGV[1], 3 + tonumber(ARGV[2])
local vanished, standing = {}, {}
for number = first, #ARGV do
  local list = redis.call('EXISTS', prefix .. 'e:' .. ARGV[number]) == 1 and standing or vanished
  list[#list + 1] = ARGV[number]
end
if #vanished == 0 then
  return standing
end
for _, index in ipairs({ 'due', 'done', 'names' }) do
  redis.call('ZREM', prefix .. index, unpack(vanished))
end
-- Nobody knows any more whose they were.
local left = #vanished
for _, team in ipairs(redis.call('ZRANGE', prefix .. 'teams', 0, -1)) do
  for number = 3, first - 1 do
    left = left - redis.call('ZREM', prefix .. 'in:' .. ARGV[number] .. ':' .. team, unpack(vanished))
    if left <= 0 then
      return standing
    end
  end
end
return standing
