-- Returns which commands the user may not run, so that it shows before something depends on it.
--
-- KEYS 1 a key of nobody's, in the namespace
-- ARGV names of commands
--
-- Returns those that the server refuses to run: no right, or no such command.
--
-- One script because the key is nobody's only while it runs: it holds a string, on which every
-- command of another type fails before it does anything, but after the server looked at rights.
local FORMS = {
  DEL = {}, UNLINK = {}, EXISTS = {}, GET = {}, PTTL = {}, SMEMBERS = {}, HGETALL = {}, HLEN = {},
  LLEN = {}, LPOP = {}, XLEN = {}, PEXPIRE = {1000}, SET = {'', 'PX', 1000},
  INCRBY = {1}, SADD = {'a'}, SREM = {'a'}, SISMEMBER = {'a'},
  HSET = {'a', 'b'}, HGET = {'a'}, HMGET = {'a'}, HDEL = {'a'},
  ZADD = {1, 'a'}, ZREM = {'a'}, ZRANGE = {0, -1}, ZRANGEBYSCORE = {0, 1},
  ZREMRANGEBYSCORE = {0, 1},
  RPUSH = {'a'}, LINDEX = {0}, LINSERT = {'BEFORE', 'a', 'b'}, LRANGE = {0, 0}, LREM = {0, 'a'},
  XADD = {'*', 'a', 'b'}, XACK = {'a', '1-1'}, XDEL = {'1-1'}, XTRIM = {'MINID', '1'},
  XRANGE = {'-', '+', 'COUNT', 1}, XPENDING = {'a'},
}
local WHOLE = {
  TIME = {}, XINFO = {'GROUPS', KEYS[1]}, RENAME = {KEYS[1], KEYS[1]},
  XGROUP = {'CREATE', KEYS[1], 'a', '0'},
  XREAD = {'STREAMS', KEYS[1], '0'},
  XREADGROUP = {'GROUP', 'a', 'b', 'COUNT', 1, 'STREAMS', KEYS[1], '>'},
}

local function is_refused(name, ...)
  local reply = redis.pcall(name, ...)
  local text = type(reply) == 'table' and reply.err
  return text and (string.find(text, "can't run", 1, true) or string.find(text, 'NOPERM', 1, true)
    or string.find(text, 'ACL failure', 1, true) or string.find(text, 'Unknown Redis', 1, true))
end

local missing = {}
if is_refused('SET', KEYS[1], '', 'PX', 1000) then
  return {'SET'}
end
if redis.pcall('EXISTS', KEYS[1]) == 0 then
  return {}  -- writes are refused for now: nothing can be said
end
for _, name in ipairs(ARGV) do
  local whole = WHOLE[name]
  local refused
  if whole then
    refused = is_refused(name, unpack(whole))
  else
    refused = is_refused(name, KEYS[1], unpack(FORMS[name]))
  end
  if refused then
    table.insert(missing, name)
  elseif name == 'DEL' or name == 'UNLINK' then
    redis.pcall('SET', KEYS[1], '', 'PX', 1000)
  end
end
redis.pcall('DEL', KEYS[1])
return missing
