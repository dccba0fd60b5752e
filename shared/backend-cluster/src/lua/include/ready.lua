-- Tasks become ready: their time limit starts, they enter the due index, somebody gets a hint.
--- @include "task"

function E.time_limit(r, id)
  local own = E.spec(r, id)
  if own and own[$WITHIN] >= 0 then
    return own[$WITHIN]
  end
  return E.exec(r, id)[$TIMEOUT]
end

-- Starts the window of a join, unless it has started.
function E.open_window(r, join)
  local s = E.state(r, join)
  if s[$DEADLINE] == 0 and s[$STATUS] < $SUCCEEDED then
    s[$DEADLINE] = E.now + E.time_limit(r, join)
    r.dirty[join] = s
    E.set_due(r, join, s[$DEADLINE])
  end
end

-- Starts the windows of joins that see their first input become ready or end.
function E.open_windows(r, id)
  local own = E.own(r, id)
  if not own or string.byte(own, $OPENS_BYTE) == 0 then
    return
  end
  local joins = cmsgpack.unpack(E.field(r, 'o:' .. id))
  for i = 1, #joins do
    E.open_window(r, joins[i])
  end
end

-- A hint is due for `id`, if it is ready still when all is done.
function E.announce(r, id)
  local ready = r.ready or {}
  r.ready = ready
  ready[#ready + 1] = id
end

-- Ready again: after a retry, a lost lease or a release.
function E.requeue(r, id)
  local s = E.state(r, id)
  if s[$FIRST_READY_AT] == 0 then
    s[$FIRST_READY_AT] = s[$READY_AT]
  end
  s[$STATUS], s[$READY_AT], s[$REPUBLISHED], s[$TOKEN] = $READY, E.now, 0, ''
  r.dirty[id] = s
  E.set_due(r, id, E.sooner(E.now + $REPUBLISH_MS, s[$DEADLINE]))
  E.announce(r, id)
end

-- Ready for long: its hint may be lost. Twice as long each time.
function E.republish(r, id, s)
  s[$REPUBLISHED] = s[$REPUBLISHED] + 1
  local wait = math.min($REPUBLISH_MS * 2 ^ math.min(s[$REPUBLISHED], 10), $REPUBLISH_CAP_MS)
  E.set_due(r, id, E.sooner(E.now + wait, s[$DEADLINE]))
  r.dirty[id] = s
  E.announce(r, id)
end

-- Puts `id` at the end of the line for its resource; says whether that is its own now.
function E.enter_line(r, id)
  local name = 'q:' .. E.state(r, id)[$RESOURCE]
  local raw = E.field(r, name)
  local line = raw and raw ~= '' and cmsgpack.unpack(raw) or {}
  line[#line + 1] = id
  E.set(r, name, cmsgpack.pack(line))
  return #line == 1
end

-- `id` is ready, and its time limit starts.
local function start_time(r, id)
  local s, limit, owner = E.state(r, id), E.time_limit(r, id), E.owner(r, id)
  s[$DEADLINE] = limit >= 0 and E.now + limit or 0
  if owner then
    -- a task's time ends with its agent's
    s[$DEADLINE] = E.sooner(s[$DEADLINE], E.state(r, owner)[$DEADLINE])
  end
  E.requeue(r, id)
end

-- The inputs of `id` are there: it is ready, unless others come first at what it touches. The windows of joins
-- behind it open.
function E.make_ready(r, id)
  if E.state(r, id)[$RESOURCE] == '' or E.enter_line(r, id) then
    start_time(r, id)
  end
  E.open_windows(r, id)
end

-- `id` needs its resource no more: the next one in the line that somebody needs is ready.
function E.leave_line(r, id)
  local resource = E.state(r, id)[$RESOURCE]
  local raw = resource ~= '' and E.field(r, 'q:' .. resource)
  if not raw or raw == '' then
    return
  end
  local before, line = cmsgpack.unpack(raw), {}
  local held = before[1] == id
  for i = 1, #before do
    local other = before[i]
    -- nobody else would take those out whose agent has ended
    if other ~= id and (not held or line[1] or not E.orphaned(r, other)) then
      line[#line + 1] = other
    end
  end
  if held and line[1] then
    start_time(r, line[1])
  end
  E.set(r, 'q:' .. resource, line[1] and cmsgpack.pack(line) or '')
end
