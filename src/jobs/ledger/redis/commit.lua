-- One step on the shared ledger, all or nothing (MONEY.md M24 to M26): the limits on requests, the comparison with what
-- the caller has seen, room for its accounts, limits on generations, budgets, and what is to be written. The state machine itself is the
-- caller's: here is only what must happen in one moment.
--
-- ARGV[1]: the command, as JSON. The answer is JSON too. Amounts that pass 2^53 are texts.
local command = cjson.decode(ARGV[1])
local prefix = command.prefix
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)
local answer = { now = now, micros = string.format('%.0f', now_us) }

local function reply(status)
  answer.status = status
  return cjson.encode(answer)
end

-- The stamp of this replica's last write that is still here. If it was told of a later one, this Redis has gone back in
-- time (an older snapshot, a copy that lagged behind), and the epoch came back with everything else: it is over.
local epoch = redis.call('GET', prefix .. 'epoch')
local last = prefix .. 'stamp:' .. command.replica
if epoch and epoch == command.epoch and (tonumber(redis.call('GET', last)) or 0) < command.last then
  redis.call('DEL', prefix .. 'epoch')
  epoch = nil
end

-- A ledger that has forgotten is not written to until the replicas have put back what they know (M26).
if not epoch or epoch ~= command.epoch then
  answer.epoch = epoch or nil
  return reply('epoch')
end
answer.epoch = epoch

-- Until when a bucket owes, in microseconds, and since when. It stands there by the interval that it was counted by: after a
-- reload it owes as many as before by the new one, and never more than the new window, also where the clock was set back
-- (as src/admission/buckets.rs has it). That is written at once, or the debt would not melt while all are refused.
local function owed(cell)
  local key = prefix .. cell.key
  local found = redis.call('HMGET', key, 't', 's', 'i')
  local tat, interval = tonumber(found[1]) or 0, tonumber(found[3]) or cell.interval
  if tat <= now_us then
    return now_us
  end
  local debt = tat - now_us
  if interval ~= cell.interval and interval > 0 then
    debt = math.ceil(debt * cell.interval / interval)
  end
  local base = now_us + math.min(debt, cell.window)
  if base ~= tat or interval ~= cell.interval then
    redis.call('HSET', key, 't', string.format('%.0f', base), 'i', string.format('%.0f', cell.interval))
    redis.call('PEXPIREAT', key, string.format('%.0f', base / 1000 + 1000))
  end
  return base, found[2]
end

-- GCRA (as src/admission/quota.rs has it).
local function take(cells, only_looks)
  local refused = false
  local levels, taken = {}, {}
  for number, cell in ipairs(cells) do
    local base, since = owed(cell)
    since = since or time[1] .. time[2] .. number
    if base + cell.interval - now_us > cell.window then
      refused = true
      levels[number] = string.format('%.0f', base)
    else
      levels[number] = string.format('%.0f', base + cell.interval)
    end
    taken[number] = { since = since, before = string.format('%.0f', base) }
  end
  if not refused and only_looks then
    return true, levels, taken
  end
  if not refused then
    for number, cell in ipairs(cells) do
      local key = prefix .. cell.key
      local interval = string.format('%.0f', cell.interval)
      redis.call('HSET', key, 't', levels[number], 's', taken[number].since, 'i', interval)
      redis.call('PEXPIREAT', key, string.format('%.0f', tonumber(levels[number]) / 1000 + 1000))
    end
  else
    for number, cell in ipairs(cells) do
      if taken[number].before + cell.interval - now_us > cell.window then
        taken[number].refused = true
      else
        levels[number] = taken[number].before
      end
    end
  end
  return not refused, levels, taken
end

local function note(name, levels, taken)
  local list = {}
  for number = 1, #levels do
    list[number] = { tat = levels[number], since = taken[number].since, refused = taken[number].refused or false }
  end
  answer[name] = list
end

local function present()
  local values = {}
  for _, key in ipairs(command.expect) do
    values[#values + 1] = { key.key, redis.call('GET', prefix .. key.key) or cjson.null }
  end
  return values
end

-- The stamp of each value, as far as they are noted: for some time after an epoch's birth.
local function stamps()
  local list = {}
  for _, key in ipairs(command.expect) do
    list[#list + 1] = redis.call('HGET', prefix .. 'stamps', key.key) or ''
  end
  return list
end

if #command.requests > 0 then
  local ok, levels, taken = take(command.requests, command.only_looks)
  note('requests', levels, taken)
  if not ok then
    return reply('limited')
  end
end

if command.read then
  answer.values = present()
  answer.members = {}
  for _, key in ipairs(command.members) do
    answer.members[#answer.members + 1] = redis.call('SMEMBERS', prefix .. key)
  end
  if command.restores then
    answer.stamps = stamps()
    answer.stamped = redis.call('EXISTS', prefix .. 'stamps') == 1
  end
  return reply('ok')
end

for _, key in ipairs(command.expect) do
  local value = redis.call('GET', prefix .. key.key)
  if (value or nil) ~= (key.value ~= cjson.null and key.value or nil) then
    answer.values = present()
    return reply('changed')
  end
end

if command.not_after and now > command.not_after then
  return reply('late')
end

if command.claim then
  local birth = tonumber(string.match(epoch, ':(%d+)$')) or 0
  if now < birth + command.settle then
    answer.wait = birth + command.settle - now
    return reply('wait')
  end
  -- Others are still putting back what they know.
  if redis.call('ZCOUNT', prefix .. 'restoring', now, '+inf') > 0 then
    answer.wait = 200
    return reply('wait')
  end
  -- An entry that is there already needs no more room.
  local more = 0
  for _, mark in ipairs(command.marks) do
    local is_entry = mark.key == 'names' and mark.score ~= cjson.null
    if is_entry and not redis.call('ZSCORE', prefix .. 'names', mark.member) then
      more = more + 1
    end
  end
  if more > 0 and redis.call('ZCARD', prefix .. 'names') + more > command.most_entries then
    return reply('full')
  end
  -- Where there is no room for an account of its own, the caller files the charge under that of the others.
  for number, crowd in ipairs(command.crowds) do
    if redis.call('EXISTS', prefix .. crowd.key) == 0 and redis.call('SCARD', prefix .. crowd.set) >= crowd.most then
      answer.crowd = number - 1
      return reply('crowded')
    end
  end
  for number, cap in ipairs(command.caps) do
    local sum = tonumber(cap.add)
    for _, value in ipairs(redis.call('HMGET', prefix .. cap.key, unpack(cap.fields))) do
      sum = sum + (tonumber(value) or 0)
    end
    if sum > tonumber(cap.most) then
      answer.cap = number - 1
      return reply('exhausted')
    end
  end
  if #command.generations > 0 then
    local ok, levels, taken = take(command.generations)
    note('generations', levels, taken)
    if not ok then
      return reply('limited')
    end
  end
end

-- What was certainly not sent comes back, unless the bucket has been full since; after a reload never more than one, by the
-- old measure or the new.
for _, token in ipairs(command.back) do
  local key = prefix .. token.key
  local found = redis.call('HMGET', key, 't', 's', 'i')
  local tat = tonumber(found[1]) or 0
  if tat > now_us and found[2] == token.since then
    local interval = math.min(token.interval, tonumber(found[3]) or token.interval)
    redis.call('HSET', key, 't', string.format('%.0f', tat - interval))
  end
end

-- What is written has a later stamp than everything before it, also than what was forgotten: a stamp is never less than
-- the time. What is put back keeps the one that it had.
local stamped = false
if #command.writes > 0 then
  stamped = redis.call('EXISTS', prefix .. 'stamps') == 1
  if not command.restores then
    local stamp = math.max((tonumber(redis.call('GET', prefix .. 'stamp')) or 0) + 1, now_us)
    answer.stamp = string.format('%.0f', stamp)
    redis.call('SET', prefix .. 'stamp', answer.stamp)
    -- It outlives all that this replica could put back.
    local expires = redis.call('PEXPIRETIME', last)
    for _, write in ipairs(command.writes) do
      expires = math.max(expires, write.expires)
    end
    redis.call('SET', last, answer.stamp, 'PXAT', string.format('%.0f', expires))
  end
end
for _, write in ipairs(command.writes) do
  local key = prefix .. write.key
  if stamped then
    redis.call('HSET', prefix .. 'stamps', write.key, write.stamp or answer.stamp)
  end
  if write.value == cjson.null then
    redis.call('DEL', key)
  else
    redis.call('SET', key, write.value, 'PXAT', string.format('%.0f', write.expires))
  end
end
local sums = {}
for number, change in ipairs(command.counts) do
  local key = prefix .. change.key
  sums[number] = string.format('%.0f', redis.call('HINCRBY', key, change.field, change.by))
  if change.expires ~= cjson.null then
    redis.call('PEXPIREAT', key, string.format('%.0f', change.expires))
  end
end
for _, name in ipairs(command.names) do
  redis.call('HSET', prefix .. name.key, 'name', name.name)
end
for _, mark in ipairs(command.marks) do
  if mark.score == cjson.null then
    redis.call('ZREM', prefix .. mark.key, mark.member)
  else
    redis.call('ZADD', prefix .. mark.key, string.format('%.0f', mark.score), mark.member)
  end
end
for _, member in ipairs(command.joins) do
  local key = prefix .. member.key
  if member.leaves then
    redis.call('SREM', key, member.member)
  else
    redis.call('SADD', key, member.member)
    redis.call('PEXPIREAT', key, string.format('%.0f', member.expires))
  end
end
answer.sums = sums
return reply('ok')
