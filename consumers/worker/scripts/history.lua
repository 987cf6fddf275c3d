-- Notes in the ledger what became of notifications: a function for the scripts that record that.
--
-- It has no KEYS and ARGV of its own: those scripts stand behind it in one text, because what is noted
-- has to be what is recorded.
--
-- note_outcomes(pages, group, notes): `pages` are the current and the previous page of the commands'
-- ledger; `group` is 4 bytes of its name's digest, '' where no history is kept; a note is a ledger
-- field (16 bytes), 8 bytes of digest and one that says what (1 handled, 2 dead, 3 skipped; two
-- bits) and after how many attempts (six bits). Returns nothing.
--
-- An outcome is 9 bytes behind its mark: group, that byte, and milliseconds since the notification
-- was accepted (4 bytes). One a group: a replay's takes the place of the one before, so noting one
-- twice changes nothing. bridge/outbox/scripts/publish.lua describes the record. What the ledger has
-- forgotten stays so: nothing is made here. It never fails: where Redis refuses, nothing is noted,
-- and what is recorded is recorded. (A page of a wrong type is refused, and said, at publishing.)
local note_outcomes
do
  local HEAD, DIGEST, STAMPED, OUTCOME, MOST_GROUPS, SLICE = 4, 8, 15, 9, 64, 500

  local function ms_at(record, at)
    local a, b, c, d, e, f = string.byte(record, at, at + 5)
    return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
  end

  local function after(ms)
    ms = math.max(0, math.min(ms, 4294967295))
    local d = ms % 256
    ms = (ms - d) / 256
    local c = ms % 256
    ms = (ms - c) / 256
    local b = ms % 256
    return string.char((ms - b) / 256, b, c, d)
  end

  -- The record with an outcome noted, or nil if it has no such mark.
  local function noted(record, group, note, now_ms)
    if not record or #record <= HEAD then return nil end
    local length = string.byte(record, 3) * 256 + string.byte(record, 4)
    local at = string.find(record, string.sub(note, 17, 24), HEAD + 1 + length, true)
    local count = at and string.byte(record, at + STAMPED)
    if not count then return nil end
    local first = at + STAMPED + 1
    local what = string.sub(note, 25)
    local outcome = group .. what .. after(now_ms - ms_at(record, at + DIGEST))
    if count == 0 then  -- nearly always, with one group
      return string.sub(record, 1, first - 2) .. '\1' .. outcome .. string.sub(record, first)
    end
    local behind = first + count * OUTCOME
    for other = first, behind - 1, OUTCOME do
      if string.sub(record, other, other + 4) == group .. what then
        return record
      end
      if string.sub(record, other, other + 3) == group then
        return string.sub(record, 1, other - 1) .. outcome .. string.sub(record, other + OUTCOME)
      end
    end
    if count >= MOST_GROUPS then return record end
    return string.sub(record, 1, first - 2) .. string.char(count + 1)
      .. string.sub(record, first, behind - 1) .. outcome .. string.sub(record, behind)
  end

  local function note_on(page, group, notes, now_ms)
    local missed, changed, places = {}, {}, {}
    local fields, records = {}, {}
    for i, note in ipairs(notes) do
      fields[i] = string.sub(note, 1, 16)
    end
    local found = redis.pcall('HMGET', page, unpack(fields))
    if found.err then return {} end
    for i, note in ipairs(notes) do
      local field = fields[i]
      local record = noted(records[field] or found[i], group, note, now_ms)
      if record then
        if not places[field] then
          places[field] = #changed + 1
          changed[#changed + 1] = field
        end
        changed[places[field] + 1] = record
        records[field] = record
      else
        missed[#missed + 1] = note
      end
    end
    if #changed > 0 then
      redis.pcall('HSET', page, unpack(changed))
    end
    return missed
  end

  function note_outcomes(pages, group, notes)
    if group == '' or #notes == 0 then return end
    local time = redis.call('TIME')
    local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
    for first = 1, #notes, SLICE do
      local some = { unpack(notes, first, math.min(first + SLICE - 1, #notes)) }
      local missed = note_on(pages[1], group, some, now_ms)
      if #missed > 0 then
        note_on(pages[2], group, missed, now_ms)
      end
    end
  end
end

