#!lua flags=allow-oom
-- Lets the shard move on to a newer version of what is stored, unless a living process does not read it.
--
-- KEYS[1] meta        hash: version of what is stored
-- KEYS[2] fleet       zset: living processes by the time until which they count as alive
-- ARGV[1] to          the version
-- RETURNS the processes that do not read it; the version is raised where there are none
-- EMITS   nothing
-- REPEAT  changes nothing

local time, behind = redis.call('TIME'), {}
local alive = redis.call('ZRANGE', KEYS[2], string.format('%.0f', time[1] * 1000), '+inf', 'BYSCORE')
for i = 1, #alive do
  local newest = string.match(alive[i], '^%S+ %S+ %S+ %d+%-(%d+)')
  if not newest or tonumber(newest) < tonumber(ARGV[1]) then
    behind[#behind + 1] = alive[i]
  end
end
if #behind == 0 and tonumber(redis.call('HGET', KEYS[1], 'version') or 0) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'version', ARGV[1])
end
return behind
