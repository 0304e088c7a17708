-- One session by the hash of its token or by its id. Changes nothing.
-- `sure`: asked because of a fact of it, which came with its record: what is not here has ended, and is forgotten.
local record = loadAsked()
if record then return { HEAD, digits(AWAY), ARGS.id, cjson.encode(record) } end
if isAsserting() and not ARGS.sure then stop('WAITING nodes still assert their sessions') end
return { HEAD }
