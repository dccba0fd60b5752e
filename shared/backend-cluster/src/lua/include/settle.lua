-- The end of tasks and everything that follows from it: successors, joins, maps, losers, the run's end.
--- @include "join"
--- @include "ready"

-- Queues the end of a task. `cause` is the failed task at the root of a skipped one; `cut` says that the engine
-- ends it, so that an attempt which holds it does not know.
function E.push(r, id, status, degraded, error, cause, cut)
  local q = r.q or {}
  r.q, r.qh = q, r.qh or 1
  q[#q + 1] = { id, status, degraded, error, cause, cut }
end

function E.end_run(r, status, task, error, quiet)
  local m = E.change_head(r)
  m[$RUN_STATUS], m[$RUN_ENDED] = status, E.now
  E.set_due(r, '', E.now + $LINGER_MS)
  E.lands(r)
  if status == $RUN_FAILED then
    E.put(r, 'ft', task or '')
    E.put(r, 'fe', error)
    E.log(r, 'run.failed', (task and ',"task":"' .. task .. '"' or '') .. ',"error":' .. error)
  else
    E.log(r, status == $RUN_CANCELLED and 'run.cancelled' or 'run.succeeded', '')
  end
  if not quiet then
    E.abort(r, '')
  end
  r.q = nil
end

-- Tells `id` that one of its inputs has ended. A late input is recorded, not merged.
local function input_ended(r, id, good, cause, error)
  local s = E.state(r, id)
  if s[$STATUS] ~= $WAITING then
    return
  end
  if string.byte(E.own(r, id), $KIND_BYTE) == $JOIN then
    local count = good and $DONE or $MISSED
    s[count] = s[count] + 1
    r.dirty[id] = s
    E.check_join(r, id)
  elseif good then
    s[$PENDING] = s[$PENDING] - 1
    r.dirty[id] = s
    if s[$PENDING] == 0 then
      E.make_ready(r, id)
    end
  elseif error then
    E.push(r, id, $SKIPPED, 0, error, cause, false)
  end
end

local function log_end(r, id, status, degraded, error)
  if status == $SUCCEEDED then
    E.log_task(r, 'task.succeeded', id, degraded == 1 and ',"degraded":true' or ',"degraded":false')
  elseif status == $FAILED then
    E.log_task(r, 'task.failed', id, ',"error":' .. error)
  else
    E.log_task(r, status == $SKIPPED and 'task.skipped' or 'task.cancelled', id, '')
  end
end

local function settle(r, id, status, degraded, error, cause, cut)
  local s = E.state(r, id)
  if not s or s[$STATUS] >= $SUCCEEDED then
    return
  end
  local before, parent = s[$STATUS], E.parent(r, id)
  if (status == $FAILED or status == $SKIPPED) and E.exec(r, id)[$FALLBACK] == 1 then
    status, degraded = $SUCCEEDED, 1
    E.put(r, 'r:' .. id, E.field(r, parent and 'F:' .. parent or 'f:' .. id))
    s[$FROZEN] = ''
  end
  s[$STATUS], s[$DEGRADED], s[$ENDED_AT] = status, degraded, E.now
  r.dirty[id] = s
  if before == $RUNNING and cut then
    s[$TOKEN] = ''
  end
  if error and not cause then
    E.set(r, 'e:' .. id, error)
  end
  if degraded == 1 then
    E.change_head(r)[$RUN_DEGRADED] = 1
  end
  if before ~= $WAITING or s[$DEADLINE] ~= 0 then
    E.set_due(r, id, 0)
  end
  local good, own = status == $SUCCEEDED, E.own(r, id)
  local agent = own and string.byte(own, $KIND_BYTE) == $AGENT
  local below = (s[$ACTIVE] or 0) > 0 or (agent and (before == $EXPANDED or E.field(r, 'y:' .. id)))
  if (before == $RUNNING and cut) or below then
    E.abort(r, id)
  end
  log_end(r, id, status, degraded, error)
  if own and string.byte(own, $LAST_BYTE) == 1 then
    -- nothing can be in flight behind an output that ran, or that had all its inputs; unless this very step was
    -- about to end it. What an agent has added is told by its own abort
    local g = before ~= $RUNNING and E.spec(r, id)
    local whole = not g or (g[$KIND] == $JOIN and s[$DONE] == g[$INPUTS])
    whole = whole and not r.q[r.qh]
    E.end_run(r, good and $RUN_SUCCEEDED or $RUN_FAILED, cause or id, error, good and whole)
    return
  end
  E.leave_line(r, id)
  if parent then
    E.child_ended(r, parent, good)
  else
    local owned = own and string.byte(own, $OWNED_BYTE)
    if agent or owned ~= $NOT_OWNED then
      local added = E.field(r, 'y:' .. id)
      E.drop_unused(r, added and cmsgpack.unpack(added) or {})
    end
    if owned == $VITAL and error and not good then
      E.push(r, E.owner(r, id), $FAILED, 0, error, nil, true)
    end
    local raw = E.field(r, 'n:' .. id)
    local successors = raw and cmsgpack.unpack(raw) or {}
    if raw then
      E.fetch_tasks(r, successors)
    end
    E.open_windows(r, id)
    for i = 1, #successors do
      input_ended(r, successors[i], good, cause or id, not good and error)
    end
    if before == $WAITING then
      E.drop_losers(r, id)
    end
  end
end

-- Works off the queue. Every task settles at most once, so this ends.
function E.settle_all(r)
  while r.q and r.q[r.qh] do
    local next = r.q[r.qh]
    r.qh = r.qh + 1
    settle(r, next[1], next[2], next[3], next[4], next[5], next[6])
  end
  r.q, r.qh = nil, nil
end
