#!lua flags=allow-oom
-- Marks a failed run as replayed: its tasks in quarantine are no dead letters any more.
--
-- KEYS[1] run         hash of the failed run
-- KEYS[2] dead        zset: tasks in quarantine by the time they were put there
-- ARGV[1] id          of the failed run
-- RETURNS 1, or 0 when there is no such run
-- EMITS   nothing
-- REPEAT  changes nothing

local got = redis.call('HMGET', KEYS[1], 'm', 'dl')
if not got[1] then
  return 0
end
local tasks = got[2] and cmsgpack.unpack(got[2]) or {}
redis.call('HSET', KEYS[1], 'rp', '1')
for _, id in ipairs(tasks) do
  redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. id)
end
return 1
