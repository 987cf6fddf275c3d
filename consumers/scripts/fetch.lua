-- Reads entries of one partition for its owner: new ones, or those still pending.
--
-- KEYS 1 lease  2 stream  3 retry
-- ARGV 1 token "worker:epoch"  2 group  3 consumer
--      4 from: ">" for new entries, else an id: pending entries after it
--      5 most entries  6 bytes of bodies after which to stop
--      7 last-delivered-id of the group as the owner knows it; compared for new entries only
--
-- Returns {entries, records, last-delivered-id}: entries as XREADGROUP gives them ({id, {field,
-- value, …}}, the fields nil where the entry was deleted while pending); records is empty for new
-- entries, else the attempt record of each entry or nil; the last-delivered-id as it was before.
-- Where that is not the one the owner knows, no new entries are read. Error FENCED when the lease
-- is not ours.
--
-- Atomic because an entry must not enter the pending list on behalf of a worker that lost the
-- lease: its successor may have read that list already. Nor without its owner's knowing: a call
-- that was given up may arrive after the pending list was read again over another connection. Then
-- new entries would be read past those that it took. Reads in steps, so that a few long bodies do
-- not make the reply long.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the lease of ' .. KEYS[1] .. ' is not ours')
end

local delivered
-- pcall: where there is no stream, XREADGROUP has the better word for it.
for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', KEYS[2])) do
  local info = {}
  for i = 1, #group, 2 do
    info[group[i]] = group[i + 1]
  end
  if info['name'] == ARGV[2] then
    delivered = info['last-delivered-id']
  end
end
if ARGV[4] == '>' and delivered and delivered ~= ARGV[7] then
  return {{}, {}, delivered}
end

local STEP = 64
local from, most, max_bytes = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, bytes = {}, 0
while #entries < most and bytes < max_bytes do
  local step = math.min(STEP, most - #entries)
  local reply = redis.call(
    'XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', step, 'STREAMS', KEYS[2], from)
  local batch = reply and reply[1] and reply[1][2] or {}
  for _, entry in ipairs(batch) do
    entries[#entries + 1] = entry
    local fields = entry[2]
    if fields then
      bytes = bytes + #fields[#fields]
    end
  end
  if #batch < step then
    break
  end
  if from ~= '>' then
    from = batch[#batch][1]
  end
end

local records = {}
if ARGV[4] ~= '>' then
  for i, entry in ipairs(entries) do
    records[i] = redis.call('HGET', KEYS[3], entry[1])
  end
end
return {entries, records, delivered}
