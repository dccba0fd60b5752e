#!lua
-- Accepts a run that goes on from what a failed one recorded. What it holds was worked out by the caller, from a run
-- that has ended and changes no more.
--
-- KEYS[1] runs        zset: the runs of the shard by tenant and the time they were accepted
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4] run         hash of the new run
-- KEYS[5] log         list of its events
-- KEYS[6] blobs       hash of its large results: kept before, for some time
-- ARGV[1] id          of the new run
-- ARGV[2] listed      its entry in the index of runs
-- ARGV[3] key         the API key that it counts for; '' where there is none
-- ARGV[4] most        how many runs of that key may be under way, or -1
-- ARGV[5] elsewhere   how many of them are in other shards
-- ARGV[6] flies       1, or 0 where what was recorded has ended it
-- ARGV[7] fields      packed: names and values in turn
-- ARGV[8] due         packed: times and members in turn
-- ARGV[9] events      packed: the first events
-- RETURNS 1; 0 when there is such a run already, 2 when its key has as many runs as may be: nothing was written then
-- EMITS   run.started and what follows from what was recorded
-- REPEAT  0; what was refused by 2 is tried anew
--- @include "flying"

local function in_chunks(command, key, list)
  for from = 1, #list, $CHUNK do
    redis.call(command, key, unpack(list, from, math.min(from + $CHUNK - 1, #list)))
  end
end

if redis.call('HGET', KEYS[4], 'm') then
  return 0
end
local id, key, most = ARGV[1], ARGV[3], tonumber(ARGV[4])
if key ~= '' and most >= 0 and E.flying(KEYS[3], key) + tonumber(ARGV[5]) >= most then
  return 2
end
local fields, due, events = cmsgpack.unpack(ARGV[7]), cmsgpack.unpack(ARGV[8]), cmsgpack.unpack(ARGV[9])
-- as in "submit": an entry without its run is harmless. Without its head, which comes last, there is no run
redis.call('UNLINK', KEYS[4], KEYS[5])
redis.call('ZADD', KEYS[1], 0, ARGV[2])
if key ~= '' and ARGV[6] == '1' then
  redis.call('ZADD', KEYS[3], 0, key .. ':' .. id)
end
in_chunks('RPUSH', KEYS[5], events)
in_chunks('ZADD', KEYS[2], due)
in_chunks('HSET', KEYS[4], fields)
redis.call('PERSIST', KEYS[6])
return 1
