-- Who makes room: the oldest `done` entry of the team that has most entries, of those that have any that may leave
-- (MONEY.md M28); of two teams that have as many, the one with the older entry. What earlier versions left in one index
-- for all counts as a team's of its own. Answers the index and the entry, or nothing.
--
-- ARGV: prefix, the states.
local prefix = ARGV[1]
local best
local function offer(index, entries)
  local oldest = redis.call('ZRANGE', prefix .. index, 0, 0, 'WITHSCORES')
  local member, at = oldest[1], tonumber(oldest[2])
  if member and (not best or entries > best.entries or entries == best.entries and at < best.at) then
    best = { index = index, member = member, entries = entries, at = at }
  end
end

offer('done', redis.call('ZCARD', prefix .. 'done'))
for _, team in ipairs(redis.call('ZRANGE', prefix .. 'teams', 0, -1)) do
  local entries = 0
  for number = 2, #ARGV do
    entries = entries + redis.call('ZCARD', prefix .. 'in:' .. ARGV[number] .. ':' .. team)
  end
  offer('in:done:' .. team, entries)
end
return best and { best.index, best.member } or {}
