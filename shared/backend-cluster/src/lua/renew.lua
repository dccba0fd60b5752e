#!lua flags=allow-oom
-- Extends the leases of attempts.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2] flying      zset: runs under way by their API keys
-- KEYS[3..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per attempt
-- ITEM at, task, token
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code}
-- EMITS   nothing
-- REPEAT  extends once more
--- @include "task"
--- @include "items"
--- @include "clock"
--- @include "flush"

local function renew_one(r, id, token)
  local s = E.begin(r, id)
  if s == nil then
    return { $RENEW_LOST }
  end
  if E.over(r) or E.orphaned(r, id) then
    return { $RENEW_CANCELLED }
  end
  if s and s[$STATUS] == $CANCELLED then
    return { $RENEW_CANCELLED }
  end
  if not s or s[$STATUS] ~= $RUNNING or s[$TOKEN] ~= token then
    return { $RENEW_LOST }
  end
  E.set_due(r, id, E.sooner(E.now + $LEASE_MS, s[$DEADLINE]))
  return { $RENEW_HELD }
end

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 3, function(at, task, token)
  local r = E.open(at, KEYS[1 + 2 * at], KEYS[2 + 2 * at], runs[at])
  return renew_one(r, task, token)
end)
return E.flush(KEYS[1], KEYS[2], ARGV[2], ARGV[3], answers)
