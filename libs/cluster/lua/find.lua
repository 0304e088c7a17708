-- One session by the hash of its token or by its id. Changes nothing.
local id = ARGS.id or idOfToken(ARGS.t)
local record = id and load(id)
if record then return { HEAD, digits(AWAY), id, cjson.encode(record) } end
if isAsserting() then stop('WAITING nodes still assert their sessions') end
return { HEAD }
