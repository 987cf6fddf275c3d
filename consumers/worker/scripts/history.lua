-- Notes in the ledger what became of notifications: a function for the scripts that record that.
--
-- It has no KEYS and ARGV of its own: those scripts stand behind it in one text, because what is noted
-- has to be what is recorded.
--
-- note_outcomes(pages, group, notes): `pages` are the current and the previous page of the commands'
-- ledger; `group` is 4 bytes of its name's digest, '' where no history is kept; `notes` is a string
-- of 25 bytes for each: a ledger field (16), 8 of digest and one that says what (1 handled, 2 dead,
-- 3 skipped; two bits) and after how many attempts (six bits). Returns nothing.
--
-- An outcome is 9 bytes behind its mark: group, that byte, and the low 32 bits of when (epoch ms of
-- this server). One a group: a replay's takes the place of the one before, so noting one
-- twice changes nothing. bridge/outbox/scripts/publish.lua describes the record. What the ledger has
-- forgotten stays so: nothing is made here. It never fails: where Redis refuses, nothing is noted,
-- and what is recorded is recorded. (A page of a wrong type is refused, and said, at publishing.)
local note_outcomes
do
  local HEAD, COUNT_AT, OUTCOME, MOST_GROUPS, NOTE, SLICE = 4, 15, 9, 64, 25, 500
  local byte, char, find, sub, unpack = string.byte, string.char, string.find, string.sub, unpack

  local function stamp()
    local time = redis.call('TIME')
    local ms, bytes = time[1] * 1000 + math.floor(time[2] / 1000), ''
    for _ = 1, 4 do
      bytes = char(ms % 256) .. bytes
      ms = math.floor(ms / 256)
    end
    return bytes
  end

  -- The record with an outcome noted, or nil if it has no such mark.
  local function noted(record, digest, outcome)
    local _, _, high, low = byte(record, 1, HEAD)
    local at = low and find(record, digest, HEAD + 1 + high * 256 + low, true)
    local count = at and byte(record, at + COUNT_AT)
    if not count then return nil end
    local first = at + COUNT_AT + 1
    if count == 0 then  -- nearly always, with one group
      return sub(record, 1, first - 2) .. '\1' .. outcome .. sub(record, first)
    end
    local behind = first + count * OUTCOME
    for other = first, behind - 1, OUTCOME do
      if sub(record, other, other + 4) == sub(outcome, 1, 5) then
        return record
      end
      if sub(record, other, other + 3) == sub(outcome, 1, 4) then
        return sub(record, 1, other - 1) .. outcome .. sub(record, other + OUTCOME)
      end
    end
    if count >= MOST_GROUPS then return record end
    return sub(record, 1, first - 2) .. char(count + 1)
      .. sub(record, first, behind - 1) .. outcome .. sub(record, behind)
  end

  -- Where in `notes` those stand that are of no mark on this page; `starts` are all to be noted.
  local function note_on(page, notes, starts, outcomes)
    local fields = {}
    for i, at in ipairs(starts) do
      fields[i] = sub(notes, at, at + 15)
    end
    local found = redis.pcall('HMGET', page, unpack(fields))
    if found.err then return {} end
    local missed, latest = {}, {}
    for i, at in ipairs(starts) do
      local field = fields[i]
      local record = latest[field] or found[i]
      record = record and noted(record, sub(notes, at + 16, at + 23), outcomes[byte(notes, at + 24)])
      if record then
        latest[field] = record
      else
        missed[#missed + 1] = at
      end
    end
    local changed, count = {}, 0
    for field, record in pairs(latest) do
      changed[count + 1], changed[count + 2] = field, record
      count = count + 2
    end
    if count > 0 then
      redis.pcall('HSET', page, unpack(changed))
    end
    return missed
  end

  function note_outcomes(pages, group, notes)
    if group == '' or notes == '' then return end
    local now = stamp()
    -- By the byte that says what: a batch has few of them.
    local outcomes = setmetatable({}, {
      __index = function(made, what)
        local outcome = group .. char(what) .. now
        made[what] = outcome
        return outcome
      end,
    })
    for first = 1, #notes, SLICE * NOTE do
      local starts = {}
      for at = first, math.min(first + (SLICE - 1) * NOTE, #notes), NOTE do
        starts[#starts + 1] = at
      end
      local missed = note_on(pages[1], notes, starts, outcomes)
      if #missed > 0 then
        note_on(pages[2], notes, missed, outcomes)
      end
    end
  end
end

