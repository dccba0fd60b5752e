#!lua flags=allow-oom
-- Ends runs now. What is in flight is dropped; what comes later is told so.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2] flying      zset: runs under way by their API keys
-- KEYS[3..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per run
-- ITEM at
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code}
-- EMITS   run.cancelled
-- REPEAT  ENDED
--- @include "settle"
--- @include "items"
--- @include "clock"
--- @include "flush"

local function cancel_one(r)
  if not E.found(r, redis.call('HGET', r.key, 'm')) then
    return { $CANCEL_GONE }
  end
  if E.over(r) then
    return { $CANCEL_ENDED }
  end
  E.end_run(r, $RUN_CANCELLED)
  return { $CANCEL_DONE }
end

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 1, function(at)
  local r = E.open(at, KEYS[1 + 2 * at], KEYS[2 + 2 * at], runs[at])
  return cancel_one(r)
end)
return E.flush(KEYS[1], KEYS[2], ARGV[2], ARGV[3], answers)
