#!lua flags=allow-oom
-- Opens a shard: the first caller sets its identity. A server that is not the one seen last (restarted, failed
-- over) may have gone back in time, so that the epoch changes with it. The caller counts as alive from here on, so that
-- the shard can't move on to a version that it does not read.
--
-- KEYS[1] meta        hash: epoch, server, shards, version
-- KEYS[2] fleet       zset: living processes by the time until which they count as alive
-- ARGV[1] server      run id of the server
-- ARGV[2] epoch       the epoch to start if one must be started
-- ARGV[3] shards      how many shards the caller divides the runs into
-- ARGV[4] oldest      version of what is stored that the caller reads and writes
-- ARGV[5] newest      the newest one; a new store gets it
-- ARGV[6] member      the caller as it announces itself; '' for one that does not
-- ARGV[7] alive       for how many ms it counts as alive
-- RETURNS {epoch, shards, version}; nothing was written where shards or version are not the caller's
-- EMITS   nothing
-- REPEAT  the same answer

local known = redis.call('HMGET', KEYS[1], 'epoch', 'server', 'shards', 'version')
local epoch, server = known[1], known[2]
local shards, version = known[3] or ARGV[3], known[4] or ARGV[5]
local number = tonumber(version) or 0
if shards ~= ARGV[3] or number < tonumber(ARGV[4]) or number > tonumber(ARGV[5]) then
  return { epoch or '', shards, version }
end
if ARGV[6] ~= '' then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[2], string.format('%.0f', time[1] * 1000 + ARGV[7]), ARGV[6])
end
if server ~= ARGV[1] then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'server', ARGV[1], 'shards', shards, 'version', version)
end
return { epoch, shards, version }
