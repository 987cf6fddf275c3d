-- Records the outcome of the head of a parked device's list.
--
-- KEYS 1 lease  2 parked  3 parked list of the device  4 retry  5 dead
--      6, 7 pages of the commands' ledger
-- ARGV 1 token "worker:epoch"  2 ttl_ms  3 device
--      4 what the head begins with: its entry id as a netstring; of what is none of our messages, all
--      5 group as history.lua takes it  6 note for it, or ""
--      7 what happened:
--      "handled"
--      "retry"  8 attempt record  9 due_ms
--      "dead"   8 attempt record  9 due_ms if it must be held  10 most dead letters  11… fields
--
-- Returns {length of the list, 1 if a dead letter was refused because the dead stream is full}.
-- Error FENCED when the lease is not ours, WENTBACK when an older message is before that head.
--
-- Atomic because the head leaves the list exactly when its outcome is recorded. It is removed by
-- id: sent twice, the second call finds another head and removes nothing. What has no id is not noted
-- anywhere: it is given up again when it is loaded again.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the lease of ' .. KEYS[1] .. ' is not ours')
end
-- First write: PEXPIRE is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local device, beginning, outcome = ARGV[3], ARGV[4], ARGV[7]
local id = string.match(beginning, '^%d+:(%d+%-%d+),$')
local head = redis.call('LINDEX', KEYS[3], 0)
local is_head = head == beginning or (id and head and string.sub(head, 1, #beginning) == beginning)

local function before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end

-- Its outcome was recorded, and a failover lost that: it has to come again first, under a new epoch.
local found = head and string.match(head, '^%d+:(%d+%-%d+),')
if found and id and before(found, id) then
  return redis.error_reply('WENTBACK an older message of a parked device is there again')
end
local held = 0
if is_head then
  if outcome == 'dead' and redis.call('XLEN', KEYS[5]) >= tonumber(ARGV[10]) then
    held = 1
  end
  if outcome == 'retry' or held == 1 then
    if id then
      redis.call('HSET', KEYS[4], id, ARGV[8])
    end
    redis.call('ZADD', KEYS[2], ARGV[9], device)
  else
    if outcome == 'dead' then
      redis.call('XADD', KEYS[5], '*', unpack(ARGV, 11))
    end
    redis.call('LPOP', KEYS[3])
    if id then
      redis.call('HDEL', KEYS[4], id)
    end
    note_outcomes({ KEYS[6], KEYS[7] }, ARGV[5], ARGV[6])
  end
end
local length = redis.call('LLEN', KEYS[3])
if length == 0 then
  redis.call('ZREM', KEYS[2], device)
end
return {length, held}
