-- Where a caller's token stands. Five numbers of `usage` (or 0 for none) are booked as wasted where the attempt
-- comes too late.
--- @include "told"

function E.book(r, at, usage)
  if usage ~= 0 then
    local m = E.change_head(r)
    for i = 1, 5 do
      m[at + i - 1] = m[at + i - 1] + usage[i]
    end
  end
end

-- HOLDS: it holds the running task. HELD: it ended or expanded the task in an earlier call of the same operation.
-- GONE: no such task. Otherwise what it is told, this time or again, and the time that goes with it: STALE, OVER,
-- FAIL_RETRYING or FAIL_RELEASED. `s` is what "begin" returned.
function E.holder(r, id, s, token, usage)
  if not s then
    return $GONE, 0
  end
  local status, mine = s[$STATUS], s[$TOKEN] == token
  if mine and (status >= $SUCCEEDED or status == $EXPANDED) then
    return $HELD, 0
  end
  local needed = not (E.over(r) or status == $CANCELLED or E.orphaned(r, id))
  if needed and mine and status == $RUNNING then
    return $HOLDS, 0
  end
  local answer, at = E.told(r, id, token)
  if not answer then
    answer, at = needed and $STALE or $OVER, 0
    E.book(r, $WASTED, usage)
    E.tell(r, id, token, answer, at)
  end
  return answer, at
end
