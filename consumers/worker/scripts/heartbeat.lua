-- Says that a worker is alive, and returns which workers are.
--
-- KEYS 1 workers: sorted set, worker by the time of its last heartbeat (epoch ms of this server)
-- ARGV 1 worker  2 ms without a heartbeat after which a worker counts as gone
--
-- Returns the workers alive, sorted.
--
-- Atomic so that all workers judge by one clock, the server's, at the moment they ask.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- First write: removing is allowed when Redis is out of memory, and opens the way for ZADD.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
-- One from the future is of before this server's clock was set back: it counts from now.
local ahead = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
for _, worker in ipairs(ahead) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), worker)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
local alive = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(alive)
return alive
