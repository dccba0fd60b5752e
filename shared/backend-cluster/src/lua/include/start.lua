-- The start of an attempt, and what its worker needs to know.
--- @include "settle"

-- What the holder of `id` needs: see `store::reply::Assignment`. The fields were fetched by "assignment_fields".
function E.assignment(r, id, has_input)
  local s, x, parent = E.state(r, id), E.exec(r, id), E.parent(r, id)
  local from = parent or id
  return {
    id, s[$TOKEN], s[$ATTEMPT], E.sooner(s[$DEADLINE], r.m[$RUN_DEADLINE]), s[$READY_AT],
    x[$KIND], x[$POOL], x[$MAX_ATTEMPTS],
    E.field(r, 'b:' .. from) or '', E.field(r, 'i:' .. from) or '',
    parent and E.field(r, 'a:' .. id) or '',
    not has_input and E.field(r, 'in') or '',
  }
end

-- Adds to `want` what an assignment of `id`, which looks like a child of `parent`, takes from the store.
function E.assignment_fields(want, id, parent, has_input)
  want[#want + 1], want[#want + 2] = 'b:' .. id, 'i:' .. id
  if parent then
    want[#want + 1], want[#want + 2], want[#want + 3] = 'b:' .. parent, 'i:' .. parent, 'a:' .. id
  end
  if not has_input then
    want[#want + 1] = 'in'
  end
end

local function budget_spent(m)
  return (m[$BUDGET_TOKENS] >= 0 and m[$USAGE + 1] + m[$USAGE + 2] >= m[$BUDGET_TOKENS])
    or (m[$BUDGET_USD] >= 0 and m[$USAGE + 4] >= m[$BUDGET_USD])
end

-- The claim id inside a token.
function E.claim_of(token)
  return string.match(token, '^[^.]*%.[^.]*%.(.*)$')
end

-- Starts the next attempt of a ready task; nil when the budget forbids it, which ends the task.
function E.start(r, id, claim, has_input)
  if E.exec(r, id)[$PAID] == 1 and budget_spent(r.m) then
    E.push(r, id, $FAILED, 0, $BUDGET_ERROR, nil, true)
    E.settle_all(r)
    return nil
  end
  local s = E.state(r, id)
  local attempt = s[$ATTEMPT] + 1
  local text = string.format('%d', attempt)
  s[$ATTEMPT], s[$STATUS], s[$STARTED_AT] = attempt, $RUNNING, E.now
  s[$TOKEN] = E.epoch(r) .. '.' .. text .. '.' .. claim
  r.dirty[id] = s
  r.due[id] = E.sooner(E.now + $LEASE_MS, s[$DEADLINE])
  E.log(r, 'task.started', ',"task":"' .. id .. '","attempt":' .. text)
  return E.assignment(r, id, has_input)
end
