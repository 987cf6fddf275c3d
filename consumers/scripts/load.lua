-- Reads the first messages of parked devices of one partition, and what is known of attempts.
--
-- KEYS 1 retry  2… parked lists of the devices
-- ARGV 1 most bytes of all together
--      2 1 if the first message of the first list is to be returned whatever its length
--      3… most messages of each list
--
-- Returns for each list {messages, records, cut}: netstrings, oldest first; the attempt record of
-- each or nil; cut is 1 if there was no room for what comes next.
--
-- One script because the reply has to stay within its bytes, and only Redis knows them beforehand.
-- Writes nothing: whoever reads without the lease can record nothing of it.
local STEP = 16
local room, is_first = tonumber(ARGV[1]), ARGV[2] == '1'

local function record_of(message)
  local length = string.match(message, '^(%d+):')
  if not length then
    return false
  end
  return redis.call('HGET', KEYS[1], string.sub(message, #length + 2, #length + 1 + length))
end

local function read(key, most)
  local messages, records = {}, {}
  while #messages < most do
    local last = math.min(#messages + STEP, most) - 1
    local batch = redis.call('LRANGE', key, #messages, last)
    local asked = last + 1 - #messages
    for _, message in ipairs(batch) do
      if #message > room and not is_first then
        return {messages, records, 1}
      end
      is_first = false
      room = room - #message
      messages[#messages + 1] = message
      records[#records + 1] = record_of(message)
    end
    if #batch < asked then
      break
    end
  end
  return {messages, records, 0}
end

local replies = {}
for i = 2, #KEYS do
  replies[#replies + 1] = room > 0 and read(KEYS[i], tonumber(ARGV[i + 1])) or {{}, {}, 1}
end
return replies
