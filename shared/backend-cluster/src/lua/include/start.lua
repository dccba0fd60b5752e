-- The start of an attempt, and what its worker needs to know.
--- @include "settle"

-- The names of the fields that an assignment of `id` takes from the store besides "begin"'s. The run's trace goes
-- where its input goes.
function E.assignment_fields(id, has_input)
  local parent = E.split(id)
  if parent and has_input then
    return 'd', 'b:' .. parent, 'i:' .. parent, 'b:' .. id, 'i:' .. id, 'a:' .. id
  elseif parent then
    return 'd', 'b:' .. parent, 'i:' .. parent, 'b:' .. id, 'i:' .. id, 'a:' .. id, 'in', 'tp'
  elseif has_input then
    return 'd', 'b:' .. id, 'i:' .. id
  end
  return 'd', 'b:' .. id, 'i:' .. id, 'in', 'tp'
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

-- What the holder of `id` needs: see `Parts` in `store/transitions.rs`. Absent parts are ''. What `assignment_fields`
-- names stands in `got` behind the place `at`.
function E.assignment(r, id, got, at)
  local s, body, arg, run = E.state(r, id), at + 2, '', at + 4
  if E.split(id) then
    run = at + 7
    if E.parent(r, id) then
      arg = got[at + 6] or ''
    else
      -- only its name looks like that of a map's child
      body = at + 4
    end
  end
  return {
    id, s[$TOKEN], s[$ATTEMPT], s[$DEADLINE], s[$READY_AT], got[at + 1] or '', E.raw_exec(r, id),
    got[body] or '', got[body + 1] or '', arg, got[run] or '', got[run + 1] or '',
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
function E.start(r, id, claim, got, at)
  if string.byte(E.raw_exec(r, id), $PAID_BYTE) == 1 and budget_spent(r) then
    E.push(r, id, $FAILED, 0, $BUDGET_ERROR, nil, true)
    E.settle_all(r)
    return nil
  end
  local s = E.state(r, id)
  local attempt = s[$ATTEMPT] + 1
  s[$ATTEMPT], s[$STATUS], s[$STARTED_AT] = attempt, $RUNNING, E.now
  local number = E.text(attempt)
  s[$TOKEN] = E.epoch() .. '.' .. number .. '.' .. claim
  r.dirty[id] = s
  E.set_due(r, id, E.sooner(E.now + $LEASE_MS, s[$DEADLINE]))
  E.log_task(r, 'task.started', id, ',"attempt":' .. number)
  return E.assignment(r, id, got, at)
end
