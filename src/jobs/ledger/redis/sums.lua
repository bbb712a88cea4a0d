-- Of what was spent the larger sum is the true one (MONEY.md M9, M26).
--
-- ARGV: prefix, then of each sum its key, its field, itself and when it expires (ms; -1: never).
local prefix = ARGV[1]
for place = 2, #ARGV, 4 do
  local key, field, sum, expires = prefix .. ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]
  local standing = redis.call('HGET', key, field)
  if not standing or tonumber(standing) < tonumber(sum) then
    redis.call('HSET', key, field, sum)
    if expires ~= '-1' then
      redis.call('PEXPIREAT', key, expires)
    end
  end
end
