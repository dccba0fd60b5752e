#!lua
-- Hands ready tasks to workers, for a lease each.
--
-- KEYS[1] meta        hash: epoch of the store, paused pools
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4] held        zset: ready tasks of paused pools
-- KEYS[5..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per claim
-- ITEM at, task, claim, has_input
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code} or {RUN, assignment}
-- EMITS   task.started; where the budget is used up, what follows from the task's failure
-- REPEAT  with the same claim id: the same assignment
--- @include "start"
--- @include "items"
--- @include "clock"
--- @include "epoch"
--- @include "flush"

local function claim_one(r, id, claim, has_input)
  local s, got, behind = E.begin(r, id, E.assignment_fields(id, has_input))
  if s == nil then
    return { $CLAIM_GONE }
  end
  local over = E.over(r)
  if not s then
    -- a child that does not exist yet is not ready; of anything else there is no trace
    local map = E.parent(r, id)
    if not map then
      return { $CLAIM_GONE }
    end
    over = over or E.state(r, map)[$STATUS] >= $SUCCEEDED
    return { over and $CLAIM_CANCELLED or $CLAIM_NOT_READY }
  end
  local status = s[$STATUS]
  if over or (status < $SUCCEEDED and E.orphaned(r, id)) then
    return { $CLAIM_CANCELLED }
  end
  if status == $RUNNING then
    if E.claim_of(s[$TOKEN]) ~= claim then
      return { $CLAIM_BUSY }
    end
    return { $CLAIM_RUN, E.assignment(r, id, got, behind) }
  end
  if status == $READY then
    if s[$DEADLINE] ~= 0 and s[$DEADLINE] <= E.now then
      -- past its limit: the sweep, which is due, ends it
      return { $CLAIM_NOT_READY }
    end
    if E.paused(r, id) then
      E.hold(r, id, s)
      return { $CLAIM_PAUSED }
    end
    local assignment = E.start(r, id, claim, got, behind)
    return assignment and { $CLAIM_RUN, assignment } or { $CLAIM_DONE }
  end
  return { status >= $SUCCEEDED and $CLAIM_DONE or $CLAIM_NOT_READY }
end

E.clock(ARGV[1])
E.read_epoch(KEYS[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 4, function(at, task, claim, has_input)
  local r = E.open(at, KEYS[3 + 2 * at], KEYS[4 + 2 * at], runs[at])
  return claim_one(r, task, claim, has_input)
end)
E.flush_held(KEYS[4])
return E.flush(KEYS[2], KEYS[3], ARGV[2], ARGV[3], answers)
