-- The start of an attempt, and what its worker needs to know.
--- @include "settle"

-- The names of the fields that an assignment of `id` takes from the store besides "begin"'s. The run's trace goes
-- where its input goes.
function E.assignment_fields(id, has_input)
  local parent = E.split(id)
  if has_input and parent then
    return 'd', 'b:' .. id, 'i:' .. id, 'b:' .. parent, 'i:' .. parent, 'a:' .. id
  elseif has_input then
    return 'd', 'b:' .. id, 'i:' .. id
  elseif parent then
    return 'in', 'tp', 'd', 'b:' .. id, 'i:' .. id, 'b:' .. parent, 'i:' .. parent, 'a:' .. id
  end
  return 'in', 'tp', 'd', 'b:' .. id, 'i:' .. id
end

-- What is left of the run's budget: tokens and millionths of a dollar, -1 where there is no limit.
local function budget_left(r)
  local m = E.head(r)
  local tokens, usd = m[$BUDGET_TOKENS], m[$BUDGET_USD]
  return {
    tokens >= 0 and math.max(0, tokens - m[$USAGE + 1] - m[$USAGE + 2]) or -1,
    usd >= 0 and math.max(0, usd - m[$USAGE + 4]) or -1,
  }
end

-- What the holder of `id` needs: see `Parts` in `store/transitions.rs`. Absent parts are ''.
function E.assignment(r, id, has_input)
  local s, parent = E.state(r, id), E.parent(r, id)
  local from = parent or id
  return {
    id, s[$TOKEN], s[$ATTEMPT], s[$DEADLINE], s[$READY_AT], E.field(r, 'd') or '', E.raw_exec(r, id),
    E.field(r, 'b:' .. from) or '', E.field(r, 'i:' .. from) or '',
    parent and E.field(r, 'a:' .. id) or '',
    not has_input and E.field(r, 'in') or '', not has_input and E.field(r, 'tp') or '',
    E.owner(r, id) and budget_left(r),
  }
end

local function budget_spent(r)
  local m = E.head(r)
  return (m[$BUDGET_TOKENS] >= 0 and m[$USAGE + 1] + m[$USAGE + 2] >= m[$BUDGET_TOKENS])
    or (m[$BUDGET_USD] >= 0 and m[$USAGE + 4] >= m[$BUDGET_USD])
end

-- The claim id inside a token.
function E.claim_of(token)
  return string.match(token, '^[^.]*%.[^.]*%.(.*)$')
end

-- Starts the next attempt of a ready task; nil when the budget forbids it, which ends the task.
function E.start(r, id, claim, has_input)
  if string.byte(E.raw_exec(r, id), $PAID_BYTE) == 1 and budget_spent(r) then
    E.push(r, id, $FAILED, 0, $BUDGET_ERROR, nil, true)
    E.settle_all(r)
    return nil
  end
  local s = E.state(r, id)
  local attempt = s[$ATTEMPT] + 1
  s[$ATTEMPT], s[$STATUS], s[$STARTED_AT] = attempt, $RUNNING, E.now
  s[$TOKEN] = E.epoch() .. '.' .. attempt .. '.' .. claim
  r.dirty[id] = s
  E.set_due(r, id, E.sooner(E.now + $LEASE_MS, s[$DEADLINE]))
  E.log(r, 'task.started', ',"task":"' .. id .. '","attempt":' .. attempt)
  return E.assignment(r, id, has_input)
end
