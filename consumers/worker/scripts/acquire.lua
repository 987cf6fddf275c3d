-- Takes the lease of one partition of one group, if nobody else holds it.
--
-- KEYS 1 lease   string "worker:epoch" with TTL
--      2 epoch   string, the highest epoch ever given
--      3 retry   hash; its field "clean" is the last epoch that ended cleanly
--      4 stream
--      5 parked  sorted set of parked devices
--      6 ttl     string "epoch:ttl_ms": how long the lease of this epoch is taken for at a time
-- ARGV 1 worker  2 group  3 ttl_ms
--      4 epoch that the worker itself had last and can vouch for, 0 if none
--
-- Returns {1, epoch, clean (0 or 1), last-delivered-id, {device, due_ms, … of the first}} or {0, holder}.
--
-- Atomic because the epoch must rise by exactly the one who gets the lease. A worker may take its
-- own lease again (after a reply that was lost); the epoch rises all the same. The group is made
-- here, so that a flushed server is whole again with the first acquisition.
local LONGEST_TTL_MS = 600000 -- LEASE_TTL_S allows no more
local holder = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. ':'
if holder and string.sub(holder, 1, #mine) ~= mine then
  -- The server's clock was set back: the lease would last that much longer, and its holder may be
  -- dead. One that lives renews it well within two of its own TTLs, which may be longer than ours.
  local epoch, ttl_ms = string.match(redis.call('GET', KEYS[6]) or '', '^(%d+):(%d+)$')
  if not epoch or epoch ~= string.match(holder, ':(%d+)$') then
    ttl_ms = LONGEST_TTL_MS -- a worker of version 0.1 notes none
  end
  local longest = 2 * tonumber(ttl_ms)
  if redis.call('PTTL', KEYS[1]) > longest then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', longest))
  end
  return {0, holder}
end

-- First write: DEL is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('DEL', KEYS[1])

local time = redis.call('TIME')
local epoch = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('GET', KEYS[2])
if last and tonumber(last) >= epoch then
  epoch = tonumber(last) + 1
end
epoch = string.format('%.0f', epoch)
-- A worker that lost the lease and lives (Redis was away) knows that it did not crash.
local clean = (not last) or last == ARGV[4] or redis.call('HGET', KEYS[3], 'clean') == last

redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[6], epoch .. ':' .. ARGV[3])
redis.call('SET', KEYS[1], mine .. epoch, 'PX', ARGV[3])

local made = redis.pcall('XGROUP', 'CREATE', KEYS[4], ARGV[2], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end

local delivered = '0-0'
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[4])) do
  local info = {}
  for i = 1, #group, 2 do
    info[group[i]] = group[i + 1]
  end
  if info['name'] == ARGV[2] then
    delivered = info['last-delivered-id']
  end
end
-- The first only: where there are some, the worker reads the rest in pages (consumers/worker/recording/due_loader.py).
local parked = redis.call('ZRANGE', KEYS[5], 0, 99, 'WITHSCORES')
return {1, epoch, clean and 1 or 0, delivered, parked}
