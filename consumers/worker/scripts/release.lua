-- Gives a lease back after a clean end, or after a crash whose running deliveries are known.
--
-- KEYS 1 lease  2 retry  3 stream  4 parked
-- ARGV 1 token "worker:epoch"  2 epoch  3 group  4… pairs: entry id, attempt record
--
-- Returns 1, or 0 when the lease was not ours any more (then nothing was written: its next owner
-- has to treat everything pending as suspect).
--
-- Atomic because "ended cleanly" may only be said by the owner, and the next owner must find it
-- said when the lease is free.
--
-- Where the group has nothing left to do, records that are still there are of entries that it will
-- never see: it lapsed while they were pending, or a call that was given up arrived after all.
--
-- Who writes a record here knows of no failures: those of the record before are kept behind it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end

local function is_done()
  if #ARGV > 3 or #redis.call('ZRANGE', KEYS[4], 0, 0) > 0 then
    return false
  end
  local last
  local stream = redis.pcall('XINFO', 'STREAM', KEYS[3])
  if stream.err then
    return false
  end
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then
      last = stream[i + 1]
    end
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
    local info = {}
    for i = 1, #group, 2 do
      info[group[i]] = group[i + 1]
    end
    if info['name'] == ARGV[3] then
      return info['pending'] == 0 and info['last-delivered-id'] == last
    end
  end
  return false
end

local done = is_done()
-- First write: DEL is allowed when Redis is out of memory.
redis.call('DEL', KEYS[1])
if done then
  redis.call('DEL', KEYS[2])
end
for i = 4, #ARGV, 2 do
  local record, before = ARGV[i + 1], redis.call('HGET', KEYS[2], ARGV[i])
  local failures = before and string.find(before, ':%d+:%d+:{')
  if failures and not string.find(record, '{', 1, true) then
    record = record .. string.sub(before, failures)
  end
  redis.call('HSET', KEYS[2], ARGV[i], record)
end
redis.call('HSET', KEYS[2], 'clean', ARGV[2])
return 1
