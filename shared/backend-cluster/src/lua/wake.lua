#!lua flags=allow-oom
-- Publishes the hints of tasks again whose pool was resumed.
--
-- KEYS[1] meta        hash: paused pools
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4] held        zset: ready tasks of paused pools
-- KEYS[5..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per task; `member` is its entry among the held ones
-- ITEM at, task, member
-- RETURNS packed {time, answers, hints, aborts}; an answer is {1 where its hint is published}
-- EMITS   nothing
-- REPEAT  looks at what is held by then
--- @include "ready"
--- @include "items"
--- @include "clock"
--- @include "epoch"
--- @include "flush"

local woken = {}

local function wake_one(r, id, member)
  local s = E.begin(r, id)
  local live = s and not E.over(r) and s[$STATUS] == $READY and not E.orphaned(r, id)
  if live and E.paused(r, id) then
    return { 0 }
  end
  woken[#woken + 1] = member
  if not live then
    return { 0 }
  end
  s[$REPUBLISHED] = 0
  r.dirty[id] = s
  E.set_due(r, id, E.sooner(E.now + $REPUBLISH_MS, s[$DEADLINE]))
  E.announce(r, id)
  return { 1 }
end

E.clock(ARGV[1])
E.read_epoch(KEYS[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 3, function(at, task, member)
  local r = E.open(at, KEYS[3 + 2 * at], KEYS[4 + 2 * at], runs[at])
  return wake_one(r, task, member)
end)
local reply = E.flush(KEYS[2], KEYS[3], ARGV[2], ARGV[3], answers)
-- last: until then a repeat finds them
if #woken > 0 then
  redis.call('ZREM', KEYS[4], unpack(woken))
end
return reply
