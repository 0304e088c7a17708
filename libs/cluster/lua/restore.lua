-- Brings back from the topic of session state what the store forgot and no node holds (CLUSTER.md C1); `how` says what.
-- Only the holder of the outbox's lease does it: one that slept would bring back what has ended since.
if ARGS.reign ~= REIGN then stop('FORGOTTEN the server was replaced since') end
if redis.call('GET', KEY .. 'outbox:lease') ~= ARGS.holder then stop('FORGOTTEN the lease of the outbox is lost') end

-- By (epoch, n). A tunnel or an end that is stored is never overridden.
local function isWanted(stored, epoch, n)
  if not stored then return true end
  if stored.st == 'c' or stored.st == 'u' then return false end
  local known = number(stored, 'le')
  return known < epoch or (known == epoch and stored.n < n)
end

local function toClosed(record, reason)
  record.st, record.en, record.er = 'c', digits(NOW), reason
end

-- A parked session has not aged while the store was away, which nobody can have written down in it.
local function withoutAway(record)
  local away = tonumber(ARGS.away)
  record.pk = digits(math.min(NOW, number(record, 'pk') + away))
  put(record, 'ac', digits(math.min(NOW, number(record, 'ac') + away)))
end

local function restoreOne(id, record, blocks, started)
  local stored = load(id)
  if not isWanted(stored, number(record, 'le'), record.n) then return 'kept' end
  local plan = planOf(record)
  if record.st == 'p' then withoutAway(record) end
  -- No node has asserted it.
  if record.st == 'u' then record.st, record.pk = 'p', digits(NOW) end
  withBlocks(record, plan, blocks)
  local over, why = lifetimeEnd(record, plan)
  if over and over <= NOW then
    toClosed(record, why)
  -- While others wait nobody gets a new address. Afterwards who has one keeps it.
  elseif settle(id, record, plan, not isAsserting()) then
    why = 'address-taken'
    toClosed(record, why)
  end
  write(id, stored, record, started)
  return record.st == 'c' and 'lost ' .. why or 'restored'
end

local ACTIONS = {}

-- @return the last entry of the stream, and whether nodes still assert. Takes the time of the restore, once in a reign.
function ACTIONS.begin()
  if not META[6] then redis.call('HSET', KEYS[1], 'restoring', digits(NOW + tonumber(ARGS.limit))) end
  local last = redis.call('XREVRANGE', KEY .. 'events', '+', '-', 'COUNT', 1)[1]
  return { HEAD, last and last[1] or '0-0', isOpen(META[5]) and 1 or 0 }
end

-- Which of `marks` (id, e = epoch, n) the table lacks, or has an older record of.
function ACTIONS.missing()
  local reply = { HEAD }
  for _, mark in ipairs(ARGS.marks) do
    if isWanted(load(mark.id), tonumber(mark.e), mark.n) then reply[#reply + 1] = mark.id end
  end
  return reply
end

function ACTIONS.write()
  markAlive()
  keepGrants(ARGS.grants)
  local reply = { HEAD }
  for _, one in ipairs(ARGS.records) do
    reply[#reply + 1] = restoreOne(one.id, one.record, one.blocks, one.started)
  end
  return reply
end

-- Nobody waits for it any longer.
function ACTIONS.release()
  redis.call('HSET', KEYS[1], 'restoring', '')
  return { HEAD }
end

-- The topics have been written anew: no restore in this reign.
function ACTIONS.finish()
  redis.call('HSET', KEYS[1], 'restoring', '', 'restored', REIGN)
  return { HEAD }
end

return ACTIONS[ARGS.how]()
