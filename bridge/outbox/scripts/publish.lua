-- Appends notifications of one partition to its stream, unless the ledger knows them.
--
-- KEYS[1]  {<ns>:pp}:stream
-- KEYS[2]  {<ns>:pp}:ledger:0   the current page
-- KEYS[3]  {<ns>:pp}:ledger:1   the previous page, or missing
-- KEYS[4]  {<ns>:pp}:ledger:other:0, KEYS[5] …:1   the same for notifications of no command
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
-- the same notification. The append precedes the mark: no mark without its entry.
--
-- A record is one byte with the highest rank, then up to 16 times 8 bytes of digest and 6 bytes of
-- accept time (big-endian epoch ms of this server). 8 bytes tell 16 statuses of one command apart;
-- the whole digest would cost 24 bytes more per command. The page's field `created` (epoch ms) is
-- shorter than any ledger field and so cannot be taken for one. At most one page of each ledger is
-- turned a call, and only of a ledger that the call asks.

local STRIDE, DIGEST, STAMPED, MOST = 11, 8, 14, 16
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

local function ms_at(record, at)
  local a, b, c, d, e, f = string.byte(record, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

local function has(record, digest)
  if not record then return false end
  for at = 2, #record, STAMPED do
    if string.sub(record, at, at + DIGEST - 1) == digest
        and now_ms - ms_at(record, at + DIGEST) < window_ms then
      return true
    end
  end
  return false
end

local function rank_of(record)
  return record and string.byte(record, 1) or 0
end

-- pcall, not call: so that OOM, READONLY, MISCONF… are returned, as the reply to this script.
local function refused(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- A ledger as this call sees it, a page turned if it is time; or Redis' refusal.
local function open(current, previous)
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
    local reply = redis.pcall('UNLINK', previous)
    if refused(reply) then return reply end
    reply = redis.pcall('RENAME', current, previous)
    if refused(reply) then return reply end
  end
  return {
    current = current,
    previous = redis.call('EXISTS', previous) == 1 and previous,
    is_made = created_ms and turned == '-',
    turned = turned,
  }
end

local function mark(ledger, field, record)
  if ledger.is_made then
    return redis.pcall('HSET', ledger.current, field, record)
  end
  ledger.is_made = true
  return redis.pcall(
    'HSET', ledger.current, 'created', string.format('%.0f', now_ms), field, record)
end

local stamp = stamp_of(now_ms)
local commands, others
local outcomes = { '-', '-' }

for i = 3, #ARGV, STRIDE do
  local field, digest, rank = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local ledger
  if rank < 0 then
    rank = 0
    others = others or open(KEYS[4], KEYS[5])
    ledger = others
    outcomes[2] = others.turned
  else
    commands = commands or open(KEYS[2], KEYS[3])
    ledger = commands
    outcomes[1] = commands.turned
  end
  if refused(ledger) then return ledger end
  local record = redis.call('HGET', ledger.current, field)
  local older = ledger.previous and redis.call('HGET', ledger.previous, field)
  if has(record, digest) or has(older, digest) then
    outcomes[#outcomes + 1] = 'd'
  else
    local highest = math.max(rank_of(record), rank_of(older))
    local late = rank > 0 and rank < highest
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
    local reply = redis.pcall(unpack(add))
    if refused(reply) then return reply end

    local marks = record and string.sub(record, 2) or ''
    if #marks >= MOST * STAMPED then
      marks = string.sub(marks, #marks - (MOST - 1) * STAMPED + 1)
    end
    record = string.char(math.max(rank, highest)) .. marks .. digest .. stamp
    reply = mark(ledger, field, record)
    if refused(reply) then return reply end
    outcomes[#outcomes + 1] = late and 'l' or 'p'
  end
end
return table.concat(outcomes)
