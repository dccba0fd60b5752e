#!lua flags=allow-oom
-- Pauses a pool, or resumes it. Tasks that wait for it are woken by sweeps.
--
-- KEYS[1] meta        hash: names of paused pools
-- ARGV[1] pool        the pool
-- ARGV[2] paused      '1' to pause it, '0' to resume it
-- ARGV[3] most        pools that may be paused
-- RETURNS 1 where that is a change, 0 where it was so, -1 where too many are paused
-- EMITS   nothing
-- REPEAT  0

local pools, known, count = {}, false, 0
for pool in string.gmatch(redis.call('HGET', KEYS[1], 'paused') or '', '%S+') do
  if pool == ARGV[1] then
    known = true
  else
    count = count + 1
    pools[count] = pool
  end
end
if known == (ARGV[2] == '1') then
  return 0
end
if ARGV[2] == '1' then
  if count >= tonumber(ARGV[3]) then
    return -1
  end
  pools[count + 1] = ARGV[1]
end
redis.call('HSET', KEYS[1], 'paused', table.concat(pools, ' '))
return 1
