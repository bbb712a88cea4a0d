-- Gives out running jobs that nobody has polled for a while, each to one replica and not again before its next look
-- (MONEY.md M23). The score of a job is the moment from which its quiet counts.
--
-- ARGV: prefix, now, quiet, longest pause (all times in milliseconds), how many.
local prefix, now, quiet = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local longest, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local running = prefix .. 'running'
local due = redis.call('ZRANGEBYSCORE', running, '-inf', string.format('%.0f', now - quiet), 'LIMIT', 0, most)
for _, id in ipairs(due) do
  local looks = prefix .. 'w:' .. id
  local before = redis.call('INCR', looks) - 1
  redis.call('PEXPIRE', looks, 604800000)
  local pause = math.min(quiet * 2 ^ math.min(before, 30), math.max(quiet, longest))
  -- A little longer by chance, so that jobs made together are not looked at together for ever.
  local chance = tonumber(string.sub(redis.sha1hex(id), 1, 2), 16) / 255
  redis.call('ZADD', running, string.format('%.0f', now + pause * (1 + chance / 8) - quiet), id)
end
return due
