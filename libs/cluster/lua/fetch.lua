-- The records of some sessions, without those that have ended.
local reply = { HEAD, digits(AWAY) }
for _, id in ipairs(ARGS.ids) do
  local record = load(id)
  if record and record.st ~= 'c' then
    reply[#reply + 1] = id
    reply[#reply + 1] = cjson.encode(record)
  end
end
return reply
