-- Tasks of a run: their static part ("spec"), their state, and which map a child belongs to.
--- @include "unit"

function E.spec(r, id)
  local g = r.x[id]
  if g == nil then
    local raw = E.field(r, 'g:' .. id)
    g = raw and cmsgpack.unpack(raw)
    r.x[id] = g
  end
  return g
end

-- `each` for `each/17`, by its looks only.
function E.split(id)
  local last = string.byte(id, -1)
  if last < 48 or last > 57 then
    return nil
  end
  local parent, index = string.match(id, '^(.+)/(%d+)$')
  if parent and (#index == 1 or string.byte(index) ~= 48) and tonumber(index) <= 4294967295 then
    return parent
  end
  return nil
end

-- The map that `id` is a child of, or false.
function E.parent(r, id)
  local parent = r.p[id]
  if parent == nil then
    parent = E.split(id) or false
    if parent then
      local g = E.spec(r, parent)
      parent = g and g[$KIND] == $MAP and parent
    end
    r.p[id] = parent
  end
  return parent
end

-- How `id` is executed: its own spec, or what its map gives to its children.
function E.exec(r, id)
  local own = E.spec(r, id)
  if own then
    return own
  end
  local parent = E.parent(r, id)
  if not parent then
    return false
  end
  local name = '*' .. parent
  local x = r.x[name]
  if x == nil then
    x = cmsgpack.unpack(E.field(r, 'c:' .. parent))
    r.x[name] = x
  end
  return x
end

function E.fresh(inputs)
  return { $WAITING, 0, 0, 0, 0, 0, '', 0, 0, 0, 0, inputs, 0, 0, 0, '', '' }
end

-- The state of a task, false when there is no such task. What was never written is waiting for its inputs.
function E.state(r, id)
  local s = r.s[id]
  if s == nil then
    local raw = E.field(r, 's:' .. id)
    if raw then
      s = cmsgpack.unpack(raw)
    else
      local g = E.spec(r, id)
      s = g and E.fresh(g[$INPUTS])
    end
    r.s[id] = s
  end
  return s
end

-- The fields that any step on `id` reads, to get them in one call.
function E.fields(id)
  local want = { 'm', 's:' .. id, 'g:' .. id }
  local parent = E.split(id)
  if parent then
    want[4], want[5], want[6] = 's:' .. parent, 'g:' .. parent, 'c:' .. parent
  end
  return want, parent
end

-- Whether `id` belongs to a map that has ended: nobody needs it then.
function E.orphaned(r, id)
  local parent = E.parent(r, id)
  return parent and E.state(r, parent)[$STATUS] >= $SUCCEEDED
end
