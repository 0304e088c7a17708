-- What a node knows of sessions that Redis may have forgotten (CLUSTER.md C1). Each is answered by `kept`, or by `lost`
-- with the reason. A session that is written again is also told to the event stream as a whole record.
-- (epoch, claim id): never equal for two leases.
local function isHigher(a, b)
  local left, right = number(a, 'le'), number(b, 'le')
  if left ~= right then return left > right end
  return (a.lc or '') > (b.lc or '')
end

-- Blocks of its addresses; a grant tells how long they are.
local function withBlocks(record, plan, blocks)
  for _, family in ipairs(FAMILIES) do
    if record['a' .. family] then record['b' .. family] = entryOf(blocks[family], plan[family].length) end
  end
  return record
end

-- Two sessions with one address: the later claim loses. @return did the asserted one lose?
local function settle(id, record, plan)
  for _, family in ipairs(FAMILIES) do
    local entry = record['b' .. family]
    if entry then
      local other = occupant(family, string.sub(entry, 1, -3), plan[family].length)
      if other and other ~= id then
        local rival = load(other)
        if isHigher(record, rival) then return true end
        toEnded(other, rival, 'address-taken')
      end
    end
  end
  return false
end

-- The event is the whole record, as a line of the journal: `text` is that without its end.
local function write(id, before, record, text)
  if before then release(id, before, planOf(before)) end
  transition(id, before, record)
  if record.st ~= 'c' then
    for _, family in ipairs(FAMILIES) do hold(id, record, family) end
  end
  append(id, 'record', string.sub(text, 1, -2) .. ',"n":' .. digits(record.n) .. '}')
end

local function assertOne(id, record, blocks, text)
  local stored = load(id)
  local plan = planOf(record)
  if record.st == 'c' then
    if stored and stored.st ~= 'c' then toEnded(id, stored, record.er) end
    if not stored and number(record, 'en') + plan.tombstone > NOW then write(id, nil, record, text) end
    return 'kept'
  end
  if stored and stored.st == 'c' then return 'lost ' .. stored.er end
  if stored and isHigher(stored, record) then return 'lost superseded' end
  -- The same lease: what is stored is at least as new.
  if stored and not isHigher(record, stored) and stored.n >= record.n then return stored.st == 'u' and 'kept' or 'lost superseded' end
  withBlocks(record, plan, blocks)
  if settle(id, record, plan) then
    local ended = copy(record)
    ended.st, ended.en, ended.er, ended.n = 'c', digits(NOW), 'address-taken', record.n + 1
    if stored then
      toEnded(id, stored, 'address-taken', nil, true)
    else
      transition(id, nil, ended)
      emit(id, ended, 'ended', NOW, '"reason":"address-taken",' .. usageText(ended))
    end
    return 'lost address-taken'
  end
  if stored then record.n = math.max(stored.n, record.n) + 1 end
  if stored and stored.st == 'u' and (stored.ln ~= record.ln or stored.li ~= record.li) then
    tell(stored.ln, stored.li, id, number(stored, 'le'), 'superseded')
  end
  write(id, stored, record, text)
  return 'kept'
end

markAlive()
for _, grant in ipairs(ARGS.grants) do
  if redis.call('EXISTS', KEY .. 'g:' .. grant.key) == 0 then
    redis.call('HSET', KEY .. 'g:' .. grant.key, 'j', grant.grant, 'x', grant.plan, 'r', 0)
    redis.call('SADD', KEY .. 'grants', grant.key)
  end
end
local reply = { HEAD }
for _, asserted in ipairs(ARGS.records) do
  reply[#reply + 1] = assertOne(asserted.id, asserted.record, asserted.blocks, asserted.snapshot)
end
return reply
