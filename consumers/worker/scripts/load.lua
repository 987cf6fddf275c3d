-- Reads the first messages of parked devices of one partition, and what is known of attempts.
--
-- KEYS 1 retry  2… parked lists of the devices
-- ARGV 1 most bytes of all together
--      2 1 if the first message of the first list is to be returned whatever its length
--      3… most messages of each list
--
-- Returns for each list {messages, records, cut}: netstrings, oldest first; the attempt record of
-- each or nil; cut is 1 if there was no room for what comes next. Nothing is read after that.
--
-- One script because the reply has to stay within its bytes, and only Redis knows them beforehand.
-- Writes nothing: who reads without the lease can record nothing of it.
local FIRST_STEP, LAST_STEP = 4, 64
local room, is_first = tonumber(ARGV[1]), ARGV[2] == '1'
local longest, is_full = 1, false

local function record_of(message)
  local length = string.match(message, '^(%d+):')
  if not length then
    return false
  end
  return redis.call('HGET', KEYS[1], string.sub(message, #length + 2, #length + 1 + length))
end

-- In steps: as many as fit if they are as long as the longest so far.
local function read(key, most)
  local messages, records, step = {}, {}, FIRST_STEP
  while #messages < most do
    local asked = math.min(step, most - #messages)
    local batch = redis.call('LRANGE', key, #messages, #messages + asked - 1)
    for _, message in ipairs(batch) do
      if #message > room and not is_first then
        is_full = true
        return {messages, records, 1}
      end
      is_first = false
      room = room - #message
      longest = math.max(longest, #message)
      messages[#messages + 1] = message
      records[#records + 1] = record_of(message)
    end
    if #batch < asked then
      break
    end
    step = math.max(1, math.min(2 * step, LAST_STEP, math.floor(room / longest)))
  end
  return {messages, records, 0}
end

local replies = {}
for i = 2, #KEYS do
  replies[#replies + 1] = is_full and {{}, {}, 1} or read(KEYS[i], tonumber(ARGV[i + 1]))
end
return replies
