-- One session by the hash of its token or by its id. Changes nothing.
local record = loadAsked()
if record then return { HEAD, digits(AWAY), ARGS.id, cjson.encode(record) } end
if isAsserting() then stop('WAITING nodes still assert their sessions') end
return { HEAD }
