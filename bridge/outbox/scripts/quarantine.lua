-- Appends bodies to the quarantine, drops the oldest beyond its bound, and counts those.
--
-- KEYS[1]  <ns>:quarantine
-- KEYS[2]  {<ns>:quarantine}:dropped   a string, in the same slot
-- ARGV[1]  most entries
-- ARGV[2…] fourteen for each body, oldest first: the names and values of its entry
--
-- Returns how many of the oldest were dropped.
-- Or the error of the first write Redis refused: what came before it is appended.
--
-- One script because what is dropped without being counted would be gone unseen.

local FIELDS = 14

for i = 2, #ARGV, FIELDS do
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, i, i + FIELDS - 1))
end
local dropped = redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[1])
if dropped > 0 then
  redis.call('INCRBY', KEYS[2], dropped)
end
return dropped
