#!lua flags=allow-oom
-- Lets an ended run be forgotten at the next look, which is due now.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2] run         hash of the run
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] id          of the run
-- RETURNS DONE, RUNNING where it has not ended, or GONE
-- EMITS   nothing
-- REPEAT  DONE until it is forgotten, then GONE
--- @include "unit"
--- @include "clock"

E.clock(ARGV[1])
local raw = redis.call('HGET', KEYS[2], 'm')
if not raw then
  return $EXPIRE_GONE
end
local m = cmsgpack.unpack(raw)
if m[$RUN_STATUS] == $RUN_RUNNING then
  return $EXPIRE_RUNNING
end
m[$KEEP], m[$KEEP_FAILED] = 0, 0
redis.call('ZADD', KEYS[1], E.now, ARGV[2])
redis.call('HSET', KEYS[2], 'm', cmsgpack.pack(m))
return $EXPIRE_DONE
