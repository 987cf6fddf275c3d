-- Makes a group on the stream of one partition at its beginning, where Redis is full.
--
-- KEYS 1 stream
-- ARGV 1 group
--
-- Returns OK, or the error of XGROUP CREATE (BUSYGROUP where the group is there).
--
-- Atomic, though one command would do: a full Redis, which its workers are to free, refuses XGROUP
-- where it comes first.
-- First write: XACK is allowed when Redis is out of memory, and opens the way for the rest.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
return redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
