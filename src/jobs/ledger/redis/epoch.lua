-- The epoch that stands, or else a new one, and the stamp of a replica's last write that is still here (MONEY.md M26). For
-- some time after an epoch's birth the stamps of all values are noted, so that of what the replicas put back the latest
-- stands.
--
-- ARGV: prefix, the id of a new epoch, the replica, the latest stamp that it knows, how long stamps are noted (ms).
local prefix, id, replica, latest, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local epoch, begun = redis.call('GET', prefix .. 'epoch'), 0
if not epoch then
  local time = redis.call('TIME')
  epoch = string.format('%s:%.0f', id, math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000))
  begun = 1
  redis.call('SET', prefix .. 'epoch', epoch)
  redis.call('HSET', prefix .. 'stamps', '', '0')
  redis.call('PEXPIRE', prefix .. 'stamps', kept)
end
-- No later stamp is smaller, though the clock may have been set back.
if (tonumber(redis.call('GET', prefix .. 'stamp')) or 0) < tonumber(latest) then
  redis.call('SET', prefix .. 'stamp', latest)
end
return { epoch, begun, redis.call('GET', prefix .. 'stamp:' .. replica) or '0' }
