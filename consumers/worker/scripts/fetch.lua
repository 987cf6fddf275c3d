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
-- Returns {entries, records, last-delivered-id, cut}: entries is flat, for a table in a reply costs as
-- much as five strings: of each its id, how many strings follow, and those, names and values in
-- turn; but of the usual fields only their values behind `v`, seven; -1 where the entry was deleted
-- while pending. records is empty for new entries, else the attempt record of each entry or nil; the
-- last-delivered-id as it was before; cut is the bytes of the entry that did not fit, or 0: it is
-- pending, after those returned. Where the last-delivered-id is not the one the owner knows, no new
-- entries are read. Error FENCED when the lease is not ours.
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

local MOST_AT_ONCE = 64
local from, most, room, step = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9])
local ids, flat, count, longest, cut = {}, {}, 0, 1, 0

-- As consumers/worker/partitions/partition.py counts them; of usual entries it is the body alone.
local function size_of(fields)
  local size = 0
  for i = 1, #fields do
    size = size + #fields[i]
  end
  return size
end

-- As bridge/contract/entries.py has them.
local function is_usual(f)
  return f[15] == 'body' and f[1] == 'v' and f[2] == '1' and f[3] == 'type' and f[5] == 'id'
    and f[7] == 'device' and f[9] == 'command' and f[11] == 'status' and f[13] == 'received_at'
    and #f == 16
end

local function take(batch)
  for i = 1, #batch do
    local id, f, size = batch[i][1], batch[i][2], 0
    local usual = f and is_usual(f)
    if f then
      size = usual and #f[16] or size_of(f)
    end
    if size > room and not (count == 0 and ARGV[8] == '1') then
      cut = size
      return
    end
    count = count + 1
    ids[count] = id
    local n = #flat
    if usual then
      flat[n + 1], flat[n + 2], flat[n + 3], flat[n + 4], flat[n + 5] = id, 7, f[4], f[6], f[8]
      flat[n + 6], flat[n + 7], flat[n + 8], flat[n + 9] = f[10], f[12], f[14], f[16]
    else
      flat[n + 1], flat[n + 2] = id, f and #f or -1
      for j = 1, f and #f or 0 do
        flat[n + 2 + j] = f[j]
      end
    end
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
  for i, id in ipairs(ids) do
    records[i] = redis.call('HGET', KEYS[3], id)
  end
end
return {flat, records, delivered, cut}
