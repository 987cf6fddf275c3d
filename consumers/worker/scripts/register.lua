-- Registers a group where Redis is full.
--
-- KEYS 1 groups  set of registered groups
-- ARGV 1 group
--
-- Returns 1, or 0 where it was registered.
--
-- Atomic, though one command would do: a full Redis, which its workers are to free, refuses SADD
-- where it comes first.
-- First write: SREM is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('SREM', KEYS[1], '')
return redis.call('SADD', KEYS[1], ARGV[1])
