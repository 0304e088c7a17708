-- What a node knows of sessions that Redis may have forgotten (CLUSTER.md C1). Each is answered by `kept`, or by `lost`
-- with the reason. A session that is written again appends an event, so that whoever keeps a copy takes the record.
local function assertOne(id, record, blocks, started)
  local stored = load(id)
  if number(record, 'le') > NOW + EPOCH_LEAD and not (stored and stored.le == record.le) then return 'lost superseded' end
  local plan = planOf(record)
  if record.st == 'c' then
    if stored and stored.st ~= 'c' then toEnded(id, stored, record.er) end
    if not stored and number(record, 'en') + plan.tombstone > NOW then write(id, nil, record) end
    return 'kept'
  end
  if stored and stored.st == 'c' then return 'lost ' .. stored.er end
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
keepGrants(ARGS.grants)
local reply = { HEAD }
for _, asserted in ipairs(ARGS.records) do
  reply[#reply + 1] = assertOne(asserted.id, asserted.record, asserted.blocks, asserted.started)
end
return reply
