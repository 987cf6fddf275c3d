-- Appends notifications of one partition to its stream, unless the ledger knows them.
--
-- KEYS[1]  {<ns>:pp}:stream
-- KEYS[2]  {<ns>:pp}:commands:0   the current page
-- KEYS[3]  {<ns>:pp}:commands:1   the previous page, or missing
-- KEYS[4]  {<ns>:pp}:ledger:other:0, KEYS[5] …:1   the same for notifications of no command
-- KEYS[6]  {<ns>:pp}:ledger:0, KEYS[7] …:1   what version 0.1 keeps: goes with a page of ours
-- ARGV[1]  dedupe window, milliseconds
-- ARGV[2]  records at which a page is full
-- ARGV[3…] eleven for each notification, oldest first: ledger field (16 bytes), the first 8 bytes
--          of its digest, rank (0: none, to 4; -1: names no command), then the entry's values: type,
--          id, device, command, status, received_at, its further fields (names and values in turn,
--          a line feed between them; '' for none), body… and nothing else
--
-- Returns a string: how a page of each ledger was turned ('-' not at all, 'a' by age, 'f' because
-- it was full; two characters), then one per notification: 'p' published, 'l' published and late,
-- 'd' duplicate.
-- Or the error of the first write Redis refused: what came before it is published and marked, the
-- rest is neither.
--
-- One script because look-up, append and mark must not interleave with another ingress publishing
-- the same notification. All appends precede the marks, of which one call writes all: no mark
-- without its entry, and nothing between them that could fail while Redis lives.
--
-- A record of a command:
--    1 byte   the highest rank
--    1        number of marks, 16 at most: then the oldest goes
--    2        length of the device, which follows
--    marks    8 bytes of digest, 6 of accept time (epoch ms of this server), 1 number of outcomes,
--             and each outcome in 9 bytes: consumers/worker/scripts/history.lua writes them
-- All numbers are big-endian. 8 bytes tell 16 statuses of one command apart; the whole digest would
-- cost 24 bytes more per command. A record of another notification is its last 6 bytes: when it was
-- accepted (before it, for version 0.1, a byte 0 and 8 bytes of digest). The page's field `created`
-- (epoch ms) is shorter than any ledger field and so cannot be taken for one. At most one page of
-- each ledger is turned a call, and only of a ledger that the call asks.

local STRIDE, SLICE = 11, 1000 -- Lua passes on some thousands of values
local HEAD, DIGEST, MARK, OUTCOME, MOST = 4, 8, 15, 9, 16
local stream = KEYS[1]
local window_ms, page_records = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function stamp_of(ms)
  local bytes = {}
  for i = 6, 1, -1 do
    bytes[i] = ms % 256
    ms = (ms - bytes[i]) / 256
  end
  return string.char(bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6])
end

local function is_recent(record, at)
  local a, b, c, d, e, f = string.byte(record, at, at + 5)
  return f and now_ms - ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 - f < window_ms
end

-- pcall, not call: so that OOM, READONLY, MISCONF… are returned, as the reply to this script.
local function refused(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

local function read(page, fields)
  local records = {}
  for first = 1, #fields, SLICE do
    local found = redis.call('HMGET', page, unpack(fields, first, math.min(first + SLICE - 1, #fields)))
    for i = 1, #found do
      records[fields[first + i - 1]] = found[i]
    end
  end
  return records
end

-- A ledger as this call sees it, a page turned if it is time; or Redis' refusal.
local function open(current, previous, fields, ...)
  local created_ms = redis.call('HGET', current, 'created')
  local turned = '-'
  if created_ms then
    if now_ms - tonumber(created_ms) >= window_ms then
      turned = 'a'
    elseif redis.call('HLEN', current) > page_records then -- `created` is one of them
      turned = 'f'
    end
  end
  if turned ~= '-' then
    local reply = redis.pcall('UNLINK', previous, ...)
    if refused(reply) then return reply end
    reply = redis.pcall('RENAME', current, previous)
    if refused(reply) then return reply end
  end
  local is_made = created_ms and turned == '-'
  local has_previous = redis.call('EXISTS', previous) == 1
  return {
    page = current,
    records = is_made and read(current, fields) or {},
    older = has_previous and read(previous, fields) or {},
    turned = turned,
    changed = is_made and {} or { 'created', string.format('%.0f', now_ms) },
    place = {},
  }
end

-- Notes a record; it is written when all is appended.
local function mark(ledger, field, record)
  ledger.records[field] = record
  local place = ledger.place[field]
  if not place then
    place = #ledger.changed + 1
    ledger.place[field] = place
    ledger.changed[place] = field
  end
  ledger.changed[place + 1] = record
end

local function write(ledger)
  if not ledger or next(ledger.place) == nil then return nil end
  local changed = ledger.changed
  for first = 1, #changed, SLICE do
    local reply = redis.pcall(
      'HSET', ledger.page, unpack(changed, first, math.min(first + SLICE - 1, #changed)))
    if refused(reply) then return reply end
  end
end

-- Where the mark of a digest begins, or nil.
local function find(record, digest)
  if not record or #record <= HEAD then return nil end
  local length = string.byte(record, 3) * 256 + string.byte(record, 4)
  return string.find(record, digest, HEAD + 1 + length, true)
end

local function has(record, digest)
  local at = find(record, digest)
  return at and is_recent(record, at + DIGEST)
end

local function rank_of(record)
  return record and string.byte(record, 1) or 0
end

local function ends_of(record, at)
  return at + MARK - 1 + OUTCOME * (string.byte(record, at + MARK - 1) or 0)
end

local function without(record, at)
  return string.char(string.byte(record, 1), string.byte(record, 2) - 1)
    .. string.sub(record, 3, at - 1) .. string.sub(record, ends_of(record, at) + 1)
end

local stamp = stamp_of(now_ms)

-- A record with one mark more, of which it has none that counts.
local function with(record, rank, device, digest)
  if not record or #record <= HEAD then
    record = string.char(0, 0, math.floor(#device / 256), #device % 256) .. device
  end
  local at = find(record, digest)
  if not at and string.byte(record, 2) >= MOST then
    at = HEAD + 1 + string.byte(record, 3) * 256 + string.byte(record, 4)
  end
  if at then record = without(record, at) end
  return string.char(rank, string.byte(record, 2) + 1) .. string.sub(record, 3)
    .. digest .. stamp .. '\0'
end

local fields = { {}, {} }
for i = 3, #ARGV, STRIDE do
  local of = fields[tonumber(ARGV[i + 2]) < 0 and 2 or 1]
  of[#of + 1] = ARGV[i]
end
local commands = #fields[1] > 0 and open(KEYS[2], KEYS[3], fields[1], KEYS[6], KEYS[7])
if refused(commands) then return commands end
local others = #fields[2] > 0 and open(KEYS[4], KEYS[5], fields[2])
if refused(others) then return others end
local outcomes = { commands and commands.turned or '-', others and others.turned or '-' }

local function publish(i, late)
  local add = {
    'XADD', stream, '*', 'v', '1', 'type', ARGV[i + 3], 'id', ARGV[i + 4],
    'device', ARGV[i + 5], 'command', ARGV[i + 6], 'status', ARGV[i + 7],
    'received_at', ARGV[i + 8],
  }
  if late then
    add[#add + 1] = 'late'
    add[#add + 1] = '1'
  end
  if ARGV[i + 9] ~= '' then
    for word in string.gmatch(ARGV[i + 9], '[^\n]+') do
      add[#add + 1] = word
    end
  end
  add[#add + 1] = 'body'
  add[#add + 1] = ARGV[i + 10]
  return redis.pcall(unpack(add))
end

local function publish_other(i)
  local field = ARGV[i]
  for _, record in ipairs({ others.records[field] or '', others.older[field] or '' }) do
    if is_recent(record, #record - 5) then return 'd' end
  end
  local reply = publish(i, false)
  if refused(reply) then return reply end
  mark(others, field, '\0' .. ARGV[i + 1] .. stamp)
  return 'p'
end

local function publish_command(i, rank)
  local field, digest = ARGV[i], ARGV[i + 1]
  local record, older = commands.records[field], commands.older[field]
  if has(record, digest) or has(older, digest) then return 'd' end
  local highest = math.max(rank_of(record), rank_of(older))
  local late = rank > 0 and rank < highest
  local reply = publish(i, late)
  if refused(reply) then return reply end
  mark(commands, field, with(record, math.max(rank, highest), ARGV[i + 5], digest))
  return late and 'l' or 'p'
end

local refusal
for i = 3, #ARGV, STRIDE do
  local rank = tonumber(ARGV[i + 2])
  local outcome = rank < 0 and publish_other(i) or publish_command(i, rank)
  if refused(outcome) then
    refusal = outcome
    break
  end
  outcomes[#outcomes + 1] = outcome
end
return write(commands) or write(others) or refusal or table.concat(outcomes)
