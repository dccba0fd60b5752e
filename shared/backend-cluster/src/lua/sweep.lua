#!lua flags=allow-oom
-- Looks at entries of the due index whose time has come: publishes hints again, starts retries, takes tasks back
-- from lost attempts, closes windows, ends tasks and runs at their deadlines, purges runs after their retention.
--
-- KEYS[1] runs        zset: the runs of the shard by tenant and the time they were accepted
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4] dead        zset: tasks in quarantine by the time they were put there
-- KEYS[5] held        zset: ready tasks of paused pools
-- KEYS[6] meta        hash: paused pools
-- KEYS[7..] run, log, blobs  per run of the batch: its hash, the list of its events, the hash of its large results
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per entry; `task` is '' for the run itself
-- ITEM at, task
-- RETURNS packed {time, answers, hints, aborts}; an answer is {1 when its run was purged}
-- EMITS   task.lost, task.failed, run.failed, ... and what follows
-- REPEAT  looks at what is due by then: after an answer, nothing
--- @include "settle"
--- @include "dead"
--- @include "items"
--- @include "clock"
--- @include "epoch"
--- @include "flush"

local purged = {}

local function look_at_run(r)
  if not E.over(r) then
    E.end_run(r, $RUN_FAILED, nil, $DEADLINE_ERROR)
  elseif not E.kept(r) then
    -- where an error kept it from being taken out at its end
    E.lands(r)
    E.field(r, 'dl')
    purged[#purged + 1] = r
    return { 1 }
  end
  return { 0 }
end

local function look_at_live(r, id, s)
  local status, g = s[$STATUS], E.spec(r, id)
  if s[$DEADLINE] ~= 0 and s[$DEADLINE] <= E.now then
    if g and g[$WITHIN] >= 0 and (g[$KIND] == $JOIN or status == $EXPANDED) then
      E.window_closed(r, id)
    else
      E.push(r, id, $FAILED, 0, s[$LIMITED] > 0 and $LIMITED_TIMEOUT_ERROR or $TIMEOUT_ERROR, nil, true)
    end
  elseif status == $READY and E.paused(r, id) then
    E.hold(r, id, s)
  elseif status == $READY then
    E.republish(r, id, s)
  elseif status == $RETRYING then
    E.requeue(r, id)
  elseif status == $RUNNING then
    s[$LOST] = s[$LOST] + 1
    r.dirty[id] = s
    if s[$LOST] >= $MAX_LOST then
      E.quarantine(r, id)
      E.push(r, id, $FAILED, 0, $POISON_ERROR, nil, true)
    else
      E.log_task(r, 'task.lost', id, '')
      E.requeue(r, id)
    end
  else
    E.set_due(r, id, s[$DEADLINE])
  end
  E.settle_all(r)
end

local function look_one(r, id)
  local member = id == '' and r.id or r.id .. ':' .. id
  local score = E.due[member] or tonumber(redis.call('ZSCORE', KEYS[2], member) or 0)
  if score == 0 or score > E.now then
    return { 0 }
  end
  if id == '' and E.found(r, redis.call('HGET', r.key, 'm')) then
    return look_at_run(r)
  end
  local s = id ~= '' and E.begin(r, id)
  -- of a run that is gone, of one that has ended, and of what has ended in it, there is nothing to look at
  if not s or E.over(r) or s[$STATUS] >= $SUCCEEDED then
    E.set_due(r, id, 0)
  elseif E.orphaned(r, id) then
    if s[$STATUS] == $RUNNING then
      -- whoever still holds it is told that nobody needs its result
      s[$TOKEN] = ''
    end
    s[$STATUS], s[$ENDED_AT] = $CANCELLED, E.now
    r.dirty[id] = s
    E.set_due(r, id, 0)
    E.leave_line(r, id)
  else
    look_at_live(r, id, s)
  end
  return { 0 }
end

E.clock(ARGV[1])
E.read_epoch(KEYS[6])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 2, function(at, task)
  local r = E.open(at, KEYS[3 * at + 4], KEYS[3 * at + 5], runs[at])
  r.blobs = KEYS[3 * at + 6]
  return look_one(r, task)
end)
E.bury(KEYS[4])
E.flush_held(KEYS[5])
-- the run's own entry goes last: until then a repeat finds what is left
for _, r in ipairs(purged) do
  redis.call('ZREM', KEYS[1], E.listed(r))
  E.exhume(r, KEYS[4])
  redis.call('UNLINK', r.log, r.blobs, r.key)
  E.set_due(r, '', 0)
end
return E.flush(KEYS[2], KEYS[3], ARGV[2], ARGV[3], answers)
