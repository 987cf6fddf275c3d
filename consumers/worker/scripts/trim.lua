-- Removes the entries of one partition that every registered group is done with.
--
-- KEYS 1 stream    ARGV registered groups
--
-- Returns the number of entries removed; -1 when a registered group is missing on the stream
-- (it may yet need everything), in which case nothing is removed.
--
-- Atomic because a delivery between looking and trimming could make an entry pending that is
-- trimmed then. Needs no lease: what it removes follows from the stream alone.
local function after(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  -- Sequence numbers go to 2^64 - 1, beyond what Lua's numbers count exactly; adding one there
  -- would be wrong, keeping one entry more is not.
  if #seq > 15 then
    return id
  end
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end

local function before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local present, keep_from = {}, nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do
    info[group[i]] = group[i + 1]
  end
  present[info['name']] = true
  local needs
  if info['pending'] > 0 then
    needs = redis.call('XPENDING', KEYS[1], info['name'])[2]
  else
    needs = after(info['last-delivered-id'])
  end
  if not keep_from or before(needs, keep_from) then
    keep_from = needs
  end
end
for _, name in ipairs(ARGV) do
  if not present[name] then
    return -1
  end
end
if not keep_from then
  return 0
end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', keep_from)
