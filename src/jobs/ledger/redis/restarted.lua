-- The script of the steps was not there: Redis was started anew, or another one answers in its place, with what it had a
-- while ago. So the epoch that was found is over, unless somebody was quicker, or nothing was ever written by these steps
-- (MONEY.md M26).
--
-- ARGV: prefix, the epoch that was found.
local prefix, found = ARGV[1], ARGV[2]
if redis.call('GET', prefix .. 'epoch') == found and redis.call('EXISTS', prefix .. 'stamp') == 1 then
  redis.call('DEL', prefix .. 'epoch')
end
