-- Gives a dead letter back to its group: as a new entry at the end of its partition.
--
-- KEYS 1 dead  2 stream    ARGV 1 id of the dead letter  2 group
--
-- Returns the id of the new entry, or nil when there is no such dead letter (any more).
--
-- Atomic because a dead letter must be either dead or in the stream, and only one of two operators
-- who replay the same one may succeed. The entry comes after what is newer; other groups
-- acknowledge it unrun, by its field "for".
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then
  return nil
end
local fields, body = {}, nil
local old = found[1][2]
for i = 1, #old, 2 do
  local name = old[i]
  if name == 'body' then
    body = old[i + 1]
  elseif name ~= 'for' and name ~= 'replayed' and string.sub(name, 1, 5) ~= 'dead_' then
    fields[#fields + 1] = name
    fields[#fields + 1] = old[i + 1]
  end
end
for _, each in ipairs({'for', ARGV[2], 'replayed', '1'}) do
  fields[#fields + 1] = each
end
if body then
  fields[#fields + 1] = 'body'
  fields[#fields + 1] = body
end
local id = redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
return id
