-- An idempotency key that merely hit is remembered, unless it is known already (MONEY.md M16). There is room for so many of
-- them; the oldest leave first.
--
-- ARGV: the prefix, the key's digest, its record, until when it is kept, the time, and how many are.
local prefix, digest, expires = ARGV[1], ARGV[2], ARGV[4]
if not redis.call('SET', prefix .. 'k:' .. digest, ARGV[3], 'NX', 'PXAT', expires) then
  return 0
end
local hits = prefix .. 'hits'
redis.call('ZADD', hits, expires, digest)
redis.call('PEXPIREAT', hits, expires)
redis.call('ZREMRANGEBYSCORE', hits, '-inf', ARGV[5])
-- As one comes one leaves; after a reload that left less room, some more.
local more = math.min(redis.call('ZCARD', hits) - tonumber(ARGV[6]), 10)
if more > 0 then
  local oldest = redis.call('ZPOPMIN', hits, more)
  for place = 1, #oldest, 2 do
    local key = prefix .. 'k:' .. oldest[place]
    -- One that has begun an attempt since then is kept for that, and until another time.
    if redis.call('PEXPIRETIME', key) == tonumber(oldest[place + 1]) then
      redis.call('DEL', key)
    end
  end
end
return 1
