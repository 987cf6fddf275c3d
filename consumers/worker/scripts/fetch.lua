-- Reads entries of one partition for its owner: new ones, or those still pending.
--
-- KEYS 1 lease  2 stream  3 retry
-- ARGV 1 token "worker:epoch"  2 group  3 consumer
--      4 from: ">" for new entries, else an id: pending entries after it
--      5 most entries  6 most bytes
--      7 last-delivered-id of the group as the owner knows it; compared for new entries only
--      8 1 if the first entry is to be returned whatever its length
--      9 how many to read first
--
-- Returns {entries, records, last-delivered-id, cut}: entries as XREADGROUP gives them ({id, {field,
-- value, …}}, the fields nil where the entry was deleted while pending); records is empty for new
-- entries, else the attempt record of each entry or nil; the last-delivered-id as it was before;
-- cut is the bytes of the entry that did not fit, or 0: it is pending, after those returned. Where that is not the one the owner knows, no new entries are read. Error FENCED when the lease
-- is not ours.
--
-- Atomic because an entry must not enter the pending list on behalf of a worker that lost the
-- lease: its successor may have read that list already. Nor without its owner's knowing: a call
-- that was given up may arrive after the pending list was read again over another connection. Then
-- new entries would be read past those that it took. Reads in steps, as many as fit if they are
-- as long as the longest so far; what turns out longer is left out of the reply, so that its bound
-- holds whatever comes.
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
  return {{}, {}, delivered, 0}
end

local MOST_AT_ONCE, USUAL = 64, 16
local from, most, room, step = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9])
local entries, count, longest, cut = {}, 0, 1, 0

-- As consumers/worker/partitions/partition.py counts them; of usual entries it is the body alone, the last value.
local function size_of(fields)
  local size = 0
  for i = 1, #fields do
    size = size + #fields[i]
  end
  return size
end

local function take(batch)
  for i = 1, #batch do
    local entry, size = batch[i], 0
    local fields = entry[2]
    if fields then
      local is_usual = #fields == USUAL and fields[USUAL - 1] == 'body'
      size = is_usual and #fields[USUAL] or size_of(fields)
    end
    if size > room and not (count == 0 and ARGV[8] == '1') then
      cut = size
      return
    end
    count = count + 1
    entries[count] = entry
    room = room - size
    if size > longest then
      longest = size
    end
  end
end

while count < most and room > 0 do
  local asked = math.min(step, most - count)
  local reply = redis.call(
    'XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', asked, 'STREAMS', KEYS[2], from)
  local batch = reply and reply[1] and reply[1][2] or {}
  take(batch)
  if cut > 0 or #batch < asked then
    break
  end
  if from ~= '>' then
    from = batch[#batch][1]
  end
  step = math.max(1, math.min(2 * step, MOST_AT_ONCE, math.floor(room / longest)))
end

local records = {}
if ARGV[4] ~= '>' then
  for i, entry in ipairs(entries) do
    records[i] = redis.call('HGET', KEYS[3], entry[1])
  end
end
return {entries, records, delivered, cut}
