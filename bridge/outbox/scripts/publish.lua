-- Appends notifications to the streams of their partitions, unless the ledger knows them.
--
-- KEYS     for each partition these seven:
--          {<ns>:pp}:stream
--          {<ns>:pp}:commands:0   the current page
--          {<ns>:pp}:commands:1   the previous page, or missing
--          {<ns>:pp}:ledger:other:0, …:1   the same for notifications of no command
--          {<ns>:pp}:ledger:0, …:1   what version 0.1 keeps: goes when it is of no use any more
-- ARGV[1]  dedupe window, milliseconds
-- ARGV[2]  records at which a page is full
-- ARGV[3…] for each partition: how many words follow, then for each notification, oldest first: its
--          head, the entry's values (type, id, device, command, status, received_at, body), and names
--          and values of its further fields.
--          The head: ledger field (16 bytes), the first 8 bytes of its digest, rank (0: none, to 4;
--          5: names no command), the status's place in STATUSES of bridge/contract/ledger.py (0:
--          another), how many words of further fields there are
--
-- Returns a string for each partition: how a page of each ledger was turned ('-' not at all, 'a' by
-- age, 'f' because it was full; two characters), then one per notification: 'p' published, 'l'
-- published and late, 'd' duplicate.
-- If Redis refuses a write: what came before it is published and marked, the rest is neither, in no
-- partition. Of several partitions only those before it have a string then; of one the error is
-- returned.
--
-- One script because look-up, append and mark must not interleave with another ingress publishing
-- the same notification. All appends to a partition precede its marks, of which one call writes all:
-- no mark without its entry, and nothing between them that could fail while Redis lives. A record
-- that is not one of ours counts as none. Several partitions because a call costs as much as two
-- notifications; in a cluster it can be one only.
--
-- A record of a command:
--    1 byte   the highest rank
--    1        number of marks, 16 at most: then the oldest goes
--    2        length of the device, which follows
--    marks    8 bytes of digest, 6 of accept time (epoch ms of this server), 1 status (as in the
--             head), 1 number of outcomes, and each outcome in 9 bytes:
--             consumers/worker/scripts/history.lua writes them
-- All numbers are big-endian. 8 bytes tell 16 statuses of one command apart; the whole digest would
-- cost 24 bytes more per command. A record of another notification is its last 6 bytes: when it was
-- accepted (before it, for version 0.1, a byte 0 and 8 bytes of digest). The page's field `created`
-- (epoch ms) is shorter than any ledger field and so cannot be taken for one. At most one page of
-- each ledger is turned a call, and only of a ledger that the call asks.

local SLICE = 1000 -- Lua passes on some thousands of values
local HEAD, DIGEST, MARK, OUTCOME, MOST = 4, 8, 16, 9, 16
local FIELD, NO_COMMAND, WORDS = 16, 5, 8
local KEYS_EACH = 7
local call, try = redis.call, redis.pcall -- `try` where OOM, READONLY, MISCONF… are this script's reply
local byte, char, find, sub, unpack = string.byte, string.char, string.find, string.sub, unpack
local ARGV = ARGV
local window_ms, page_records = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local function place(ms, n) return math.floor(ms / 256 ^ n) % 256 end
local stamp = char(place(now_ms, 5), place(now_ms, 4), place(now_ms, 3), place(now_ms, 2), place(now_ms, 1), now_ms % 256)

local function is_recent(record, at)
  local a, b, c, d, e, f = byte(record, at, at + 5)
  return f and now_ms - ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 - f < window_ms
end

local function refused(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- Records by field, and the value of `created`.
local function read(page, fields)
  local records = {}
  for first = 1, #fields, SLICE do
    local last = math.min(first + SLICE - 1, #fields)
    for i, record in ipairs(call('HMGET', page, unpack(fields, first, last))) do
      records[fields[first + i - 1]] = record
    end
  end
  return records, records['created']
end

-- A page of version 0.1 that was begun two windows ago has nothing that counts: what is on it was
-- accepted before it would have been turned, a window after that. Its ingresses turn it themselves.
local function forget_old_version(current, previous)
  local created_ms = tonumber(try('HGET', current, 'created'))
  if created_ms and now_ms - created_ms >= 2 * window_ms then
    try('UNLINK', current, previous)
  end
end

-- A ledger as this call sees it, a page turned if it is time; or Redis' refusal. The first of
-- `fields` is `created`.
local function open(current, previous, fields)
  local records, created_ms = read(current, fields)
  local turned = '-'
  if created_ms then
    if now_ms - tonumber(created_ms) >= window_ms then
      turned = 'a'
    elseif call('HLEN', current) > page_records then -- `created` is one of them
      turned = 'f'
    end
  end
  if turned ~= '-' then
    local reply = try('UNLINK', previous)
    if refused(reply) then return reply end
    reply = try('RENAME', current, previous)
    if refused(reply) then return reply end
    return {
      page = current, records = {}, older = records, turned = turned,
      changed = { 'created', string.format('%.0f', now_ms) }, unmarked = 2,
    }
  end
  return {
    page = current,
    records = created_ms and records or {},
    older = call('EXISTS', previous) == 1 and read(previous, fields) or {},
    turned = turned,
    changed = created_ms and {} or { 'created', string.format('%.0f', now_ms) },
    unmarked = created_ms and 0 or 2,
  }
end

-- Notes a record; it is written when all is appended. Of two of one field the second counts.
local function mark(ledger, field, record)
  ledger.records[field] = record
  local changed = ledger.changed
  local count = #changed
  changed[count + 1], changed[count + 2] = field, record
end

local function write(ledger)
  if not ledger or #ledger.changed == ledger.unmarked then return nil end
  local changed = ledger.changed
  for first = 1, #changed, SLICE do
    local reply = try('HSET', ledger.page, unpack(changed, first, math.min(first + SLICE - 1, #changed)))
    if refused(reply) then return reply end
  end
end

-- Where the marks of a record begin, how many there are, and its rank; nothing if it is not ours.
local function marks_of(record)
  if not record or #record < HEAD + MARK then return nil end
  local rank, count, high, low = byte(record, 1, HEAD)
  local at = HEAD + 1 + high * 256 + low
  if count > 0 and count <= MOST and #record >= at + MARK - 1 then
    return at, count, math.min(rank, 4)
  end
end

local function without(record, at)
  local outcomes = byte(record, at + MARK - 1) or 0
  return sub(record, 1, at - 1) .. sub(record, at + MARK + OUTCOME * outcomes)
end

local usual = {
  'XADD', '', '*', 'v', '1', 'type', '', 'id', '', 'device', '', 'command', '', 'status', '',
  'received_at', '', 'body', '',
}

local function publish(i, more, late)
  usual[7], usual[9], usual[11], usual[13], usual[15], usual[17], usual[19] =
    unpack(ARGV, i + 1, i + 7)
  if more == 0 and not late then
    return try(unpack(usual))
  end
  local add = { unpack(usual, 1, 17) }
  if late then
    add[18], add[19] = 'late', '1'
  end
  for word = i + WORDS, i + WORDS + more - 1 do
    add[#add + 1] = ARGV[word]
  end
  add[#add + 1] = 'body'
  add[#add + 1] = usual[19]
  return try(unpack(add))
end

local function publish_other(others, i, head, more)
  local field = sub(head, 1, FIELD)
  for _, record in ipairs({ others.records[field] or '', others.older[field] or '' }) do
    if is_recent(record, #record - 5) then return 'd' end
  end
  local reply = publish(i, more, false)
  if refused(reply) then return reply end
  mark(others, field, '\0' .. sub(head, 17, 24) .. stamp)
  return 'p'
end

local function publish_command(commands, i, head, rank, status, more)
  local field, digest = sub(head, 1, FIELD), sub(head, 17, 24)
  local record, older = commands.records[field], commands.older[field]
  local first, count, highest = marks_of(record)
  local known = first and find(record, digest, first, true)
  if known and is_recent(record, known + DIGEST) then return 'd' end
  highest = highest or 0
  if older then
    local older_first, _, older_rank = marks_of(older)
    local at = older_first and find(older, digest, older_first, true)
    if at and is_recent(older, at + DIGEST) then return 'd' end
    highest = math.max(highest, older_rank or 0)
  end
  local late = rank > 0 and rank < highest
  local reply = publish(i, more, late)
  if refused(reply) then return reply end

  highest = math.max(rank, highest)
  if not first then
    local device = usual[11]
    record = char(highest, 1, math.floor(#device / 256), #device % 256) .. device
      .. digest .. stamp .. char(status, 0)
  else
    if known or count == MOST then
      record, count = without(record, known or first), count - 1
    end
    record = char(highest, count + 1) .. sub(record, 3) .. digest .. stamp .. char(status, 0)
  end
  mark(commands, field, record)
  return late and 'l' or 'p'
end

-- The notifications of the partition whose keys begin at `first`, from ARGV[from] to before ARGV[past].
-- Returns the string for it; an error where Redis refused.
local function publish_all(first, from, past)
  local fields, others_fields = { 'created' }, { 'created' }
  local at = from
  while at < past do
    local head = ARGV[at]
    local rank, _, more = byte(head, 25, 27)
    local of = rank == NO_COMMAND and others_fields or fields
    of[#of + 1] = sub(head, 1, FIELD)
    at = at + WORDS + more
  end
  local commands = fields[2] and open(KEYS[first + 1], KEYS[first + 2], fields)
  if refused(commands) then return commands end
  if commands and commands.turned ~= '-' then
    forget_old_version(KEYS[first + 5], KEYS[first + 6])
  end
  local others = others_fields[2] and open(KEYS[first + 3], KEYS[first + 4], others_fields)
  if refused(others) then return others end

  usual[2] = KEYS[first]
  local outcomes = (commands and commands.turned or '-') .. (others and others.turned or '-')
  local refusal
  at = from
  while at < past do
    local head = ARGV[at]
    local rank, status, more = byte(head, 25, 27)
    local outcome
    if rank == NO_COMMAND then
      outcome = publish_other(others, at, head, more)
    else
      outcome = publish_command(commands, at, head, rank, status, more)
    end
    if refused(outcome) then
      refusal = outcome
      break
    end
    outcomes = outcomes .. outcome
    at = at + WORDS + more
  end
  return write(commands) or write(others) or refusal or outcomes
end

local replies = {}
local at = 3
for first = 1, #KEYS, KEYS_EACH do
  local past = at + 1 + ARGV[at]
  local reply = publish_all(first, at + 1, past)
  if refused(reply) then return #KEYS > KEYS_EACH and replies or reply end
  replies[#replies + 1] = reply
  at = past
end
return replies
