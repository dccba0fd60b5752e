#!lua flags=allow-oom
-- Says that a process is alive, and forgets those that have not said so for long.
--
-- KEYS[1] meta        hash: version of what is stored
-- KEYS[2] fleet       zset: living processes by the time until which they count as alive
-- ARGV[1] member      the process as it announces itself
-- ARGV[2] alive       for how many ms it counts as alive
-- RETURNS the version of what is stored, '' where there is none
-- EMITS   nothing
-- REPEAT  counts from then on

local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', time[1] * 1000))
redis.call('ZADD', KEYS[2], string.format('%.0f', time[1] * 1000 + ARGV[2]), ARGV[1])
return redis.call('HGET', KEYS[1], 'version') or ''
