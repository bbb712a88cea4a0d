-- Of what was spent the larger sum is the true one (MONEY.md M9, M26). Accounts are listed again with their sums.
--
-- ARGV: prefix, then of each sum its key, its field, itself and when it expires (ms; -1: never), the set that its account is
-- in, and as what.
local prefix = ARGV[1]
for place = 2, #ARGV, 6 do
  local key, field, sum, expires = prefix .. ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]
  local set, member = prefix .. ARGV[place + 4], ARGV[place + 5]
  local standing = redis.call('HGET', key, field)
  if not standing or tonumber(standing) < tonumber(sum) then
    redis.call('HSET', key, field, sum)
    if expires ~= '-1' then
      redis.call('PEXPIREAT', key, expires)
    end
  end
  if member ~= '' and expires ~= '-1' then
    redis.call('SADD', set, member)
    redis.call('PEXPIREAT', set, expires)
  end
end
