-- Where a caller's token stands. Five numbers of `usage` (or 0 for none) are booked as wasted where the attempt
-- comes too late.
--- @include "task"

function E.book(r, at, usage)
  if usage ~= 0 then
    local m = E.change_head(r)
    for i = 1, 5 do
      m[at + i - 1] = m[at + i - 1] + usage[i]
    end
  end
end

-- HOLDS: it holds the running task. HELD: it ended the task, or scheduled its retry, in an earlier call of the
-- same operation. Otherwise STALE, OVER or GONE. `s` is what "begin" returned.
function E.holder(r, id, s, token, usage)
  if not s then
    return $GONE
  end
  local status, mine = s[$STATUS], s[$TOKEN] == token
  if mine and ((status >= $SUCCEEDED and status ~= $CANCELLED) or status == $RETRYING or status == $EXPANDED) then
    return $HELD
  end
  if E.over(r) or status == $CANCELLED or E.orphaned(r, id) then
    E.book(r, $WASTED, usage)
    return $OVER
  end
  if mine and status == $RUNNING then
    return $HOLDS
  end
  E.book(r, $WASTED, usage)
  return $STALE
end
