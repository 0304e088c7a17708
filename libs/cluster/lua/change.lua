-- What happens to one session besides a claim: park, stats (a checkpoint) and endByNode are fenced by the lease; end is not.
-- Repeated with the same `op` it says again that it was done.
local record = load(ARGS.id)
if not record then
  if isAsserting() then stop('WAITING nodes still assert their sessions') end
  return { HEAD, 0 }
end
if record.op == ARGS.op then return { HEAD, 1 } end
markAlive()

if ARGS.how == 'end' then
  if record.st == 'c' then return { HEAD, 0 } end
  toEnded(ARGS.id, record, ARGS.reason)
  return { HEAD, 1 }
end
if not holdsLease(record, ARGS.lease) then return { HEAD, 0 } end
if ARGS.how == 'endByNode' then
  -- A session that this very lease has parked already ends too: its BYE may follow the loss of its connection.
  if record.st ~= 'u' and record.st ~= 'p' then return { HEAD, 0 } end
  toEnded(ARGS.id, record, ARGS.reason, ARGS.usage, true)
  return { HEAD, 1 }
end
if record.st ~= 'u' then return { HEAD, 0 } end
if ARGS.how == 'park' then
  toParked(ARGS.id, record, ARGS.reason, ARGS.usage)
  return { HEAD, 1 }
end
-- The stream is nearly full: interim statistics stop first, and counters with them (CLUSTER.md C11).
if redis.call('EXISTS', KEY .. 'events:hold-stats') == 1 then return { HEAD, 1 } end
count(record, ARGS.usage)
record.n = record.n + 1
record.op = ARGS.op
save(ARGS.id, record)
emit(ARGS.id, record, 'stats', NOW, usageText(record))
return { HEAD, 1 }
