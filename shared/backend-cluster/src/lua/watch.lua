#!lua flags=allow-oom
-- Marks a run so that every growth of its log is announced.
--
-- KEYS[1] run         hash of the run
-- RETURNS 1, or 0 when there is no such run
-- EMITS   nothing
-- REPEAT  changes nothing

local raw = redis.call('HGET', KEYS[1], 'm')
if not raw then
  return 0
end
local m = cmsgpack.unpack(raw)
if m[$WATCHED] == 0 then
  m[$WATCHED] = 1
  redis.call('HSET', KEYS[1], 'm', cmsgpack.pack(m))
end
return 1
