-- Tasks of a run: their static part ("spec"), their state, and which map a child belongs to.
--- @include "head"

-- Decodes a spec; tasks that are alike share it.
local function spec(raw)
  local g = raw and E.specs[raw]
  if raw and not g then
    g = E.values(raw)
    E.specs[raw] = g
  end
  return g
end

-- The spec of `id` as it is stored, or false.
function E.own(r, id)
  local own = r.g[id]
  if own == nil then
    own = E.field(r, 'g:' .. id)
    r.g[id] = own
  end
  return own
end

function E.set_own(r, id, raw)
  r.g[id] = raw
  E.set(r, 'g:' .. id, raw)
end

function E.spec(r, id)
  return spec(E.own(r, id))
end

-- `each` for `each/17`, by its looks only.
function E.split(id)
  local last = string.byte(id, -1)
  if last < 48 or last > 57 then
    return nil
  end
  local parent, index
  if string.find(id, '/', 1, true) then
    parent, index = string.match(id, '^(.+)/(%d+)$')
  end
  if parent and (#index == 1 or string.byte(index) ~= 48) and tonumber(index) <= 4294967295 then
    return parent
  end
  return nil
end

-- The map that `id` is a child of, or nil.
function E.parent(r, id)
  local parent = E.split(id)
  if parent then
    local own = E.own(r, parent)
    if own and string.byte(own, $KIND_BYTE) == $MAP then
      return parent
    end
  end
  return nil
end

-- How `id` is executed: its own spec, or what its map gives to its children. Packed as it is stored.
function E.raw_exec(r, id)
  return E.own(r, id) or E.field(r, 'c:' .. E.parent(r, id))
end

function E.exec(r, id)
  return spec(E.raw_exec(r, id))
end

function E.fresh(inputs, resource)
  return { $WAITING, 0, 0, 0, 0, 0, '', 0, 0, 0, 0, inputs, 0, 0, 0, '', '', 0, 0, resource or '' }
end

-- The state of a task as it was read; false when there is no such task. What was never written is waiting for its
-- inputs. A state that this call has decoded before wins.
function E.take(r, id, raw)
  local s = r.s[id]
  if s == nil then
    if raw then
      s = E.values(raw)
    else
      local g = E.spec(r, id)
      s = g and E.fresh(g[$INPUTS])
    end
    r.s[id] = s
  end
  return s
end

function E.state(r, id)
  local s = r.s[id]
  if s == nil then
    s = E.take(r, id, E.field(r, 's:' .. id))
  end
  return s
end

-- Gets in one call what any step on `id` reads, and whatever `more` says. Returns its state, false when there is no
-- such task, or nil when there is no such run; and a list with the place in it behind which `more` stands.
function E.begin(r, id, ...)
  local parent, got, behind = E.split(id), nil, 3
  if parent then
    got = redis.call('HMGET', r.key, 'm', 's:' .. id, 'g:' .. id, 's:' .. parent, 'g:' .. parent, 'c:' .. parent, ...)
    behind = 6
    E.keep(r, 's:' .. parent, got[4])
    E.keep(r, 'g:' .. parent, got[5])
    E.keep(r, 'c:' .. parent, got[6])
  else
    got = redis.call('HMGET', r.key, 'm', 's:' .. id, 'g:' .. id, ...)
  end
  if not E.found(r, got[1]) then
    return nil
  end
  if r.g[id] == nil then
    r.g[id] = got[3]
  end
  return E.take(r, id, got[2]), got, behind
end

-- The agent that `id` belongs to, or nil.
function E.owner(r, id)
  local own = E.own(r, id)
  if own and string.byte(own, $OWNED_BYTE) ~= $NOT_OWNED then
    return E.spec(r, id)[$OWNER]
  end
  return nil
end

-- Whether `id` belongs to a map, or to an agent at any depth, that has ended: nobody needs it then.
function E.orphaned(r, id)
  local parent = E.parent(r, id)
  if parent then
    return E.state(r, parent)[$STATUS] >= $SUCCEEDED
  end
  local owner = E.owner(r, id)
  for _ = 1, $MAX_OWNERS do
    if not owner then
      return false
    end
    E.fetch(r, { 's:' .. owner, 'g:' .. owner })
    if E.state(r, owner)[$STATUS] >= $SUCCEEDED then
      return true
    end
    owner = E.owner(r, owner)
  end
  return false
end
