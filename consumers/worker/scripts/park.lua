-- Moves fetched entries of one device from the pending list to the device's parked list.
--
-- KEYS 1 lease  2 stream  3 parked  4 parked list of the device  5 retry
-- ARGV 1 token "worker:epoch"  2 ttl_ms  3 group  4 device  5 due_ms, or "" to leave it as it is
--      6… triples: entry id, attempt record or "", message (netstrings: id, fields and values)
--
-- Returns the length of the list. Error FENCED when the lease is not ours.
--
-- Atomic because an entry must be in the pending list or in the parked list at any moment, never
-- in none. A script that fails half-way is not undone: so everything is looked at first, then copied,
-- and XACK comes last. What is not pending any more was parked by an earlier call; what is listed
-- already is not listed twice.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the lease of ' .. KEYS[1] .. ' is not ours')
end

-- "" where the message does not begin with an id: written by no program of ours, it keeps its place.
local function id_of(message)
  local length = string.match(message, '^(%d+):')
  return length and string.sub(message, #length + 2, #length + 1 + tonumber(length)) or ''
end

local function before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if not a_ms then return true end
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end

local taken, ids = {}, {}
for i = 6, #ARGV, 3 do
  if #redis.call('XPENDING', KEYS[2], ARGV[3], ARGV[i], ARGV[i], 1) == 1 then
    taken[#taken + 1] = i
    ids[#ids + 1] = ARGV[i]
  end
end
local length = redis.call('LLEN', KEYS[4])

-- First write: PEXPIRE is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('PEXPIRE', KEYS[1], ARGV[2])

if length + #taken > 0 then
  if ARGV[5] ~= '' then
    redis.call('ZADD', KEYS[3], ARGV[5], ARGV[4])
  else
    redis.call('ZADD', KEYS[3], 'NX', 0, ARGV[4])
  end
end

-- Nearly always at the end. Not so for a head that was running when those behind it were parked,
-- and that was pending again after a crash: the list stays in the order of ids.
local function insert(id, message)
  local last = redis.call('LINDEX', KEYS[4], -1)
  if not last or before(id_of(last), id) then
    redis.call('RPUSH', KEYS[4], message)
    return
  end
  local at, found = 0, nil
  repeat
    found = redis.call('LINDEX', KEYS[4], at)
    at = at + 1
  until not before(id_of(found), id)
  if id_of(found) ~= id then
    redis.call('LINSERT', KEYS[4], 'BEFORE', found, message)
  end
end

for _, i in ipairs(taken) do
  if ARGV[i + 1] ~= '' then
    redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
  end
  insert(ARGV[i], ARGV[i + 2])
end
if #ids > 0 then
  redis.call('XACK', KEYS[2], ARGV[3], unpack(ids))
end
return redis.call('LLEN', KEYS[4])
