#!lua flags=allow-oom
-- Records the outcomes of attempts and moves everything that waited for them.
--
-- KEYS[1] meta        hash: epoch of the store
-- KEYS[2] due         zset: next time to look
-- KEYS[3..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per attempt; `result` is '' for a map that is expanded, `usage` five numbers
--                     or 0, `claim` '' or the id under which a ready successor of one of `pools` is claimed
-- ITEM at, task, token, result, usage, claim, pools
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code} or {RECORDED, assignment}
-- EMITS   task.succeeded or task.expanded and what follows: task.skipped, task.cancelled, run.succeeded, ...
-- REPEAT  with the same token: RECORDED, with the successor while it is held by the same claim
--- @include "start"
--- @include "holder"
--- @include "clock"
--- @include "epoch"
--- @include "flush"

local function fetch_assignment(r, id)
  E.fetch(r, { E.assignment_fields(id, 'd') })
end

-- The successor that an earlier call of the same complete claimed.
local function repeat_next(r, id, claim)
  local next = E.state(r, id)[$NEXT]
  if claim == '' or next == '' or E.over(r) then
    return nil
  end
  local s = E.state(r, next)
  if not s or s[$STATUS] ~= $RUNNING or E.claim_of(s[$TOKEN]) ~= claim then
    return nil
  end
  fetch_assignment(r, next)
  return E.assignment(r, next, true)
end

-- Claims the first task that became ready in this step, from `first` in the list, and fits.
local function take_next(r, first, claim, pools)
  if claim == '' or not r.ready or E.over(r) then
    return nil
  end
  for i = first, #r.ready do
    local id = r.ready[i]
    local s, pool = E.state(r, id), E.exec(r, id)[$POOL]
    local late = s[$DEADLINE] ~= 0 and s[$DEADLINE] <= E.now
    for k = 1, #pools do
      if pools[k] == pool and s[$STATUS] == $READY and not late then
        r.ready[i] = false
        fetch_assignment(r, id)
        return E.start(r, id, claim, true)
      end
    end
  end
  return nil
end

local function complete_one(r, id, token, result, usage, claim, pools)
  local s = E.begin(r, id, 'n:' .. id)
  local stand = E.holder(r, id, s, token, usage)
  if stand == $HELD then
    return { $HOLDS, repeat_next(r, id, claim) }
  elseif stand ~= $HOLDS then
    return { stand }
  end
  E.book(r, $USAGE, usage)
  local first = r.ready and #r.ready + 1 or 1
  if result ~= '' then
    E.put(r, 'r:' .. id, result)
    E.push(r, id, $SUCCEEDED, 0, nil, nil, false)
  else
    s[$STATUS] = $EXPANDED
    r.dirty[id] = s
    E.set_due(r, id, s[$DEADLINE])
    E.log(r, 'task.expanded', ',"task":"' .. id .. '","width":' .. string.format('%d', s[$WIDTH] or 0))
    E.check_join(r, id)
  end
  E.settle_all(r)
  local next = take_next(r, first, claim, pools)
  if next then
    s[$NEXT] = next[1]
  end
  return { $HOLDS, next }
end

E.clock(ARGV[1])
E.read_epoch(KEYS[1])
local runs, items, answers = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5]), {}
for i = 1, #items do
  local at, task, token, result, usage, claim, pools = unpack(items[i])
  local r = E.open(at, KEYS[1 + 2 * at], KEYS[2 + 2 * at], runs[at])
  answers[i] = complete_one(r, task, token, result, usage, claim, pools)
end
return E.flush(KEYS[2], ARGV[2], ARGV[3], answers)
