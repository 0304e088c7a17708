-- What a node knows of sessions that Redis may have forgotten (CLUSTER.md C1). Each is answered by `kept`, or by `lost`
-- with the reason. A session that is written again appends an event, so that whoever keeps a copy takes the record.
-- (epoch, claim id): never equal for two leases.
local function isHigher(a, b)
  local left, right = number(a, 'le'), number(b, 'le')
  if left ~= right then return left > right end
  return (a.lc or '') > (b.lc or '')
end

-- Blocks of its addresses; a grant tells how long they are.
local function withBlocks(record, plan, blocks)
  for _, family in ipairs(FAMILIES) do
    if blocks[family] ~= '' then record['b' .. family] = entryOf(blocks[family], plan[family].length) end
  end
  return record
end

-- Two sessions with one address: the later claim loses. @return did the asserted one lose?
local function settle(id, record, plan)
  local rivals = {}
  for _, family in ipairs(FAMILIES) do
    local entry = record['b' .. family]
    local other = entry and occupant(family, string.sub(entry, 1, -3), plan[family].length)
    if other and other ~= id then
      rivals[other] = load(other)
      if record.st ~= 'u' or isHigher(record, rivals[other]) then return true end
    end
  end
  for other, rival in pairs(rivals) do toEnded(other, rival, 'address-taken') end
  return false
end

local function write(id, before, record, started)
  record.n = math.max(before and before.n or 0, record.n) + 1
  if record.st == 'p' then put(record, 'aw', digits(AWAY)) end
  if before then release(id, before, planOf(before)) end
  transition(id, before, record)
  if record.st ~= 'c' then
    for _, family in ipairs(FAMILIES) do hold(id, record, family) end
  end
  if record.st == 'c' then
    emit(id, record, 'ended', number(record, 'en'), '"reason":"' .. record.er .. '",' .. usageText(record))
  elseif record.st == 'a' then
    emit(id, record, 'started', number(record, 'c'), started)
  elseif record.st == 'p' then
    emit(id, record, 'parked', number(record, 'pk'), '"reason":"node-restarted",' .. usageText(record))
  else
    emit(id, record, 'stats', NOW, usageText(record))
  end
end

local function assertOne(id, record, blocks, started)
  local stored = load(id)
  local plan = planOf(record)
  if record.st == 'c' then
    if stored and stored.st ~= 'c' then toEnded(id, stored, record.er) end
    if not stored and number(record, 'en') + plan.tombstone > NOW then write(id, nil, record) end
    return 'kept'
  end
  if stored and stored.st == 'c' then return 'lost ' .. stored.er end
  -- No node holds it: what is here is newer than any copy.
  if stored and record.st ~= 'u' then return 'kept' end
  if stored and isHigher(stored, record) then return 'lost superseded' end
  -- The same lease: what is stored is at least as new.
  if stored and not isHigher(record, stored) and stored.n >= record.n then
    return stored.st == 'u' and 'kept' or 'lost superseded'
  end
  withBlocks(record, plan, blocks)
  if settle(id, record, plan) then
    local ended = copy(record)
    ended.st, ended.en, ended.er = 'c', digits(NOW), 'address-taken'
    if stored then toEnded(id, stored, 'address-taken', nil, true) else write(id, nil, ended) end
    return 'lost address-taken'
  end
  if stored and stored.st == 'u' and (stored.ln ~= record.ln or stored.li ~= record.li) then
    tell(stored.ln, stored.li, id, number(stored, 'le'), 'superseded')
  end
  write(id, stored, record, started)
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
  reply[#reply + 1] = assertOne(asserted.id, asserted.record, asserted.blocks, asserted.started)
end
return reply
