-- Keeps a lease that is still ours.
--
-- KEYS 1 lease    ARGV 1 token "worker:epoch"  2 ttl_ms
--
-- Returns 1, or 0 when the lease is not ours any more.
--
-- Atomic because between the comparison and the extension the lease could pass to another worker.
-- PEXPIRE is allowed when Redis is out of memory; SET would not be.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
