-- The successor with which the caller of a complete goes on.
--- @include "start"

-- What an assignment of `id` takes from the store, as "begin" would get it: attempts may have added it in this call.
local function parts(r, id)
  local names, got = { E.assignment_fields(id, true) }, {}
  E.fetch(r, names)
  for i = 1, #names do
    got[i] = r.f[names[i]]
  end
  return got
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
  return E.assignment(r, next, parts(r, next), 0)
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
    if string.find(pools, ' ' .. pool .. ' ', 1, true) and s[$STATUS] == $READY and not late
      and not E.orphaned(r, id) and not E.paused(r, id) then
      r.ready[i] = false
      return E.start(r, id, claim, parts(r, id), 0)
    end
  end
  return nil
end
