#!lua flags=allow-oom
-- Records the outcomes of attempts and moves everything that waited for them.
--
-- KEYS[1] meta        hash: epoch of the store, paused pools
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per attempt; `result` is '' for a map or agent that is expanded, `answer` 1 where
--                     it is an agent's as well and 2 where a limit cut that short, `tasks` a list as in "add",
--                     false for none or 0 where they fit nobody, `usage` five numbers or 0, `claim` '' or the id
--                     under which a ready successor is claimed, of one of `pools`: names between spaces
-- ITEM at, task, token, result, answer, tasks, first_token, usage, claim, pools
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code} or {RECORDED, assignment}
-- EMITS   task.succeeded or task.expanded, task.added, and what follows: task.skipped, run.succeeded, ...
-- REPEAT  with the same token: RECORDED, with the successor while it is held by the same claim
--- @include "next"
--- @include "add"
--- @include "holder"
--- @include "items"
--- @include "clock"
--- @include "epoch"
--- @include "flush"

-- Whether the task is one that can end in this way.
local function fits(r, id, result, answer)
  if result == '' then
    local own = E.own(r, id)
    local kind = own and string.byte(own, $KIND_BYTE)
    return kind == $MAP or kind == $AGENT
  end
  return answer == 0 or E.owner(r, id)
end

local function complete_one(r, id, token, result, answer, tasks, first_token, usage, claim, pools)
  local n = 'n:' .. id
  local s, got, behind = E.begin(r, id, n)
  local stand = E.holder(r, id, s, token, usage)
  if stand == $HELD then
    return { $HOLDS, E.repeat_next(r, id, claim) }
  elseif stand == $FAIL_RETRYING or stand == $FAIL_RELEASED then
    return { $STALE }
  elseif stand ~= $HOLDS then
    return { stand }
  end
  if not fits(r, id, result, answer) or not E.can_add(r, id, tasks, $MAX_ADDED) then
    return { $REFUSED }
  end
  E.keep(r, n, got[behind + 1])
  E.book(r, $USAGE, usage)
  s[$FIRST_TOKEN] = first_token
  local first = r.ready and #r.ready + 1 or 1
  if result ~= '' then
    E.put(r, 'r:' .. id, result)
    E.push(r, id, $SUCCEEDED, 0, nil, nil, false)
  else
    s[$STATUS] = $EXPANDED
    s[$WIDTH], s[$NEXT_CHILD], s[$ACTIVE] = s[$WIDTH] or 0, s[$NEXT_CHILD] or 0, s[$ACTIVE] or 0
    r.dirty[id] = s
    E.set_due(r, id, s[$DEADLINE])
    E.log_task(r, 'task.expanded', id, ',"width":' .. E.text(s[$WIDTH]))
    E.check_join(r, id)
  end
  if tasks then
    E.add(r, id, tasks)
  end
  if answer > 0 then
    E.answer(r, id, result, answer - 1)
  end
  E.settle_all(r)
  local next = E.take_next(r, first, claim, pools)
  if next then
    s[$NEXT] = next[1]
  end
  return { $HOLDS, next }
end

E.clock(ARGV[1])
E.read_epoch(KEYS[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 10, function(at, task, token, result, answer, tasks, first_token, usage, claim, pools)
  local r = E.open(at, KEYS[2 + 2 * at], KEYS[3 + 2 * at], runs[at])
  return complete_one(r, task, token, result, answer, tasks, first_token, usage, claim, pools)
end)
return E.flush(KEYS[2], KEYS[3], ARGV[2], ARGV[3], answers)
