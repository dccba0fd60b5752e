-- Tasks become ready: their time limit starts, they enter the due index, somebody gets a hint.
--- @include "task"

function E.time_limit(r, id)
  local own = E.spec(r, id)
  if own and own[$WITHIN] >= 0 then
    return own[$WITHIN]
  end
  return E.exec(r, id)[$TIMEOUT]
end

-- Starts the windows of joins that see their first input become ready or end.
function E.open_windows(r, id)
  local own = E.field(r, 'g:' .. id)
  if not own or string.byte(own, $OPENS_BYTE) == 0 then
    return
  end
  local joins = cmsgpack.unpack(E.field(r, 'o:' .. id))
  for i = 1, #joins do
    local join = joins[i]
    local s = E.state(r, join)
    if s[$DEADLINE] == 0 and s[$STATUS] < $SUCCEEDED then
      s[$DEADLINE] = E.now + E.time_limit(r, join)
      r.dirty[join] = s
      E.set_due(r, join, s[$DEADLINE])
    end
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
  s[$STATUS], s[$READY_AT], s[$REPUBLISHED], s[$TOKEN] = $READY, E.now, 0, ''
  r.dirty[id] = s
  E.set_due(r, id, E.sooner(E.now + $REPUBLISH_MS, s[$DEADLINE]))
  E.announce(r, id)
end

-- The first time `id` becomes ready.
function E.make_ready(r, id)
  local s, limit = E.state(r, id), E.time_limit(r, id)
  s[$DEADLINE] = limit >= 0 and E.now + limit or 0
  E.requeue(r, id)
  E.open_windows(r, id)
end
