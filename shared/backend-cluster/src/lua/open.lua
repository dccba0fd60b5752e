#!lua flags=allow-oom
-- Opens a shard: the first caller sets its identity. A server that is not the one seen last (restarted, failed
-- over) may have gone back in time, so that the epoch changes with it.
--
-- KEYS[1] meta        hash: epoch, server, shards, version
-- ARGV[1] server      run id of the server
-- ARGV[2] epoch       the epoch to start if one must be started
-- ARGV[3] shards      how many shards the caller divides the runs into
-- ARGV[4] version     of the layout that the caller reads and writes
-- RETURNS {epoch, shards, version}; nothing was written where shards or version differ from the caller's
-- EMITS   nothing
-- REPEAT  the same answer

local known = redis.call('HMGET', KEYS[1], 'epoch', 'server', 'shards', 'version')
local epoch, server = known[1], known[2]
local shards, version = known[3] or ARGV[3], known[4] or ARGV[4]
if shards ~= ARGV[3] or version ~= ARGV[4] then
  return { epoch or '', shards, version }
end
if server ~= ARGV[1] then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'server', ARGV[1], 'shards', shards, 'version', version)
end
return { epoch, shards, version }
