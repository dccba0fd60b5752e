-- Tasks of a run: their static part ("spec"), their state, and which map a child belongs to.
--- @include "unit"

-- Decodes a spec once; `name` is `g:task`, or `c:map` for what a map gives to its children.
local function spec(r, name)
  local x = r.x or {}
  r.x = x
  if x[name] == nil then
    local raw = E.field(r, name)
    x[name] = raw and cmsgpack.unpack(raw)
  end
  return x[name]
end

function E.spec(r, id)
  return spec(r, 'g:' .. id)
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

-- The map that `id` is a child of, or nil.
function E.parent(r, id)
  local parent = E.split(id)
  if parent then
    local raw = E.field(r, 'g:' .. parent)
    if raw and string.byte(raw, $KIND_BYTE) == $MAP then
      return parent
    end
  end
  return nil
end

-- How `id` is executed: its own spec, or what its map gives to its children. Packed as it is stored.
function E.raw_exec(r, id)
  local own = E.field(r, 'g:' .. id)
  if own then
    return own
  end
  return E.field(r, 'c:' .. E.parent(r, id))
end

function E.exec(r, id)
  return spec(r, E.field(r, 'g:' .. id) and 'g:' .. id or 'c:' .. E.parent(r, id))
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
      s = cmsgpack.unpack(raw)
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

-- What an earlier item of the batch has set wins.
local function keep(f, name, value)
  if f[name] == nil then
    f[name] = value
  end
end

-- Gets in one call what any step on `id` reads, and whatever `more` says; returns its state, false when there is no
-- such task, or nil when there is no such run.
function E.begin(r, id, ...)
  local parent, got = E.split(id), nil
  local f = r.f or {}
  r.f = f
  if parent then
    local names = { 'm', 's:' .. id, 'g:' .. id, 's:' .. parent, 'g:' .. parent, 'c:' .. parent, ... }
    got = redis.call('HMGET', r.key, unpack(names))
    for i = 4, #names do
      keep(f, names[i], got[i])
    end
  else
    got = redis.call('HMGET', r.key, 'm', 's:' .. id, 'g:' .. id, ...)
    for i = 1, select('#', ...) do
      keep(f, select(i, ...), got[i + 3])
    end
  end
  if not E.found(r, got[1]) then
    return nil
  end
  keep(f, 'g:' .. id, got[3])
  return E.take(r, id, got[2])
end

-- The agent that `id` belongs to, or nil.
function E.owner(r, id)
  local own = E.field(r, 'g:' .. id)
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
