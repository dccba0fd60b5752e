-- The successor with which the caller of a complete goes on.
--- @include "start"

local function fetch_assignment(r, id)
  E.fetch(r, { E.assignment_fields(id, true) })
end

-- The successor that an earlier call of the same complete claimed.
function E.repeat_next(r, id, claim)
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
function E.take_next(r, first, claim, pools)
  if claim == '' or not r.ready or E.over(r) then
    return nil
  end
  for i = first, #r.ready do
    local id = r.ready[i]
    local s, pool = E.state(r, id), E.exec(r, id)[$POOL]
    local late = s[$DEADLINE] ~= 0 and s[$DEADLINE] <= E.now
    for k = 1, #pools do
      if pools[k] == pool and s[$STATUS] == $READY and not late and not E.orphaned(r, id)
        and not E.paused(r, id) then
        r.ready[i] = false
        fetch_assignment(r, id)
        return E.start(r, id, claim, true)
      end
    end
  end
  return nil
end
