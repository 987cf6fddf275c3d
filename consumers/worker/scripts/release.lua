-- Gives a lease back after a clean end, or after a crash whose running deliveries are known.
--
-- KEYS 1 lease  2 retry
-- ARGV 1 token "worker:epoch"  2 epoch  3… pairs: entry id, attempt record
--
-- Returns 1, or 0 when the lease was not ours any more (then nothing was written: its next owner
-- has to treat everything pending as suspect).
--
-- Atomic because "ended cleanly" may only be said by the owner, and the next owner must find it
-- said when the lease is free.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
-- First write: DEL is allowed when Redis is out of memory.
redis.call('DEL', KEYS[1])
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[2], 'clean', ARGV[2])
return 1
