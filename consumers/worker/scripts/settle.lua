-- Records the outcomes of deliveries of one partition.
--
-- KEYS 1 lease  2 stream  3 retry  4 dead  5, 6 pages of the commands' ledger
-- ARGV 1 token "worker:epoch"  2 ttl_ms  3 group  4 most dead letters
--      5 number of handled  6 number of forgotten  7 number of retries  8 number of dead
--      9 group and  10 notes as history.lua takes them, of what was handled, then
--      handled: id…                 acknowledged
--      forgotten: id…               their attempt records go (a part of the handled ones)
--      retries: id, record…         attempts set, not incremented
--      dead: id, record, note or "", n, n fields and values…
--
-- Returns the ids of dead ones that were not taken because the dead stream is full; they stay
-- pending with their record. Error FENCED when the lease is not ours: then nothing was written.
--
-- Atomic because a dead letter must exist exactly if its entry was acknowledged by this very call,
-- and because a worker that lost its lease must not acknowledge. A script that fails half-way is not
-- undone: so the copy comes first and XACK after it, and whatever may be refused leaves the entry
-- pending. Sent twice, the second call changes nothing and answers the same: what is not pending any
-- more is recorded.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the lease of ' .. KEYS[1] .. ' is not ours')
end
-- First write: PEXPIRE is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local group, dead_max = ARGV[3], tonumber(ARGV[4])
local at = 11

-- Lua's unpack has a limit of some thousands of values.
local function each_slice(count, call)
  local last = at + count - 1
  while at <= last do
    local till = math.min(at + 999, last)
    call(unpack(ARGV, at, till))
    at = till + 1
  end
end

each_slice(tonumber(ARGV[5]), function(...) redis.call('XACK', KEYS[2], group, ...) end)
each_slice(tonumber(ARGV[6]), function(...) redis.call('HDEL', KEYS[3], ...) end)
each_slice(2 * tonumber(ARGV[7]), function(...) redis.call('HSET', KEYS[3], ...) end)

local pages = { KEYS[5], KEYS[6] }
note_outcomes(pages, ARGV[9], ARGV[10])

local held, dead, buried = {}, tonumber(ARGV[8]), ''
if dead > 0 then
  -- Acknowledges nothing: without the right to, each try would leave one more copy.
  redis.call('XACK', KEYS[2], group, '0-0')
end
for _ = 1, dead do
  local id, record, note, n = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  if #redis.call('XPENDING', KEYS[2], group, id, id, 1) == 0 then
    -- An earlier call recorded it.
  elseif redis.call('XLEN', KEYS[4]) >= dead_max then
    redis.call('HSET', KEYS[3], id, record)
    held[#held + 1] = id
  else
    redis.call('XADD', KEYS[4], '*', unpack(ARGV, at + 4, at + 3 + n))
    redis.call('XACK', KEYS[2], group, id)
    redis.call('HDEL', KEYS[3], id)
    buried = buried .. note
  end
  at = at + 4 + n
end
note_outcomes(pages, ARGV[9], buried)
return held
