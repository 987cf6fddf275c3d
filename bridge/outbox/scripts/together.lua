-- Whether keys of a partition are where `<ns>:meta` is, so that one call may touch both.
--
-- KEYS[1]  a key of the partition, which leads the call to its server
-- KEYS[2]  <ns>:meta, which exists
-- ARGV     none
--
-- Returns 1 or 0; or the error of a server that takes no keys of several slots. A proxy that does
-- not look at the second key has it answered by a server that has none.
--
-- A script because it asks of one key where another one led to: no command does.

return redis.call('EXISTS', KEYS[2])
