-- Tasks that attempts add to their run: whether they may, how they are tied to their inputs, and the answer that
-- ends their agent. A task is {id, spec, event, inputs, fields, resource}; see `added` in `store/layout.rs`.
--- @include "settle"

-- The agent that tasks added by `id` belong to, or nil.
local function owner_for(r, id)
  local own = E.own(r, id)
  if own and string.byte(own, $KIND_BYTE) == $AGENT then
    return id
  end
  return E.owner(r, id)
end

-- Gets in one call what there is of `tasks` and of their inputs.
local function fetch_all(r, tasks)
  local want, seen = { 'added' }, {}
  for i = 1, #tasks do
    local id, inputs = tasks[i][1], tasks[i][4]
    want[#want + 1] = 'g:' .. id
    for k = 1, #inputs do
      local input, n = inputs[k], #want
      if not seen[input] then
        seen[input] = true
        want[n + 1], want[n + 2], want[n + 3] = 'g:' .. input, 's:' .. input, 'n:' .. input
      end
    end
  end
  E.fetch(r, want)
end

-- Whether `id` may add `tasks`, a list, false for none or 0 where they fit nobody, to a run that takes `most`.
function E.can_add(r, id, tasks, most)
  if not tasks or tasks == 0 then
    return not tasks
  end
  local owner = owner_for(r, id)
  fetch_all(r, tasks)
  if not owner or (E.field(r, 'added') or 0) + #tasks > most then
    return false
  end
  local below, earlier = owner .. '/', {}
  for i = 1, #tasks do
    local new, inputs = tasks[i][1], tasks[i][4]
    -- a name that another's task has, or that a map's child may get
    local foreign = (E.own(r, new) and E.owner(r, new) ~= owner) or E.parent(r, new)
    if foreign or string.sub(new, 1, #below) ~= below then
      return false
    end
    for k = 1, #inputs do
      if not earlier[inputs[k]] and E.owner(r, inputs[k]) ~= owner then
        return false
      end
    end
    earlier[new] = true
  end
  return true
end

-- Notes in `lists`, the fields that grow, that `id` stands in the list `name`.
local function link(r, lists, name, id)
  local list = lists[name]
  if not list then
    local raw = E.field(r, name)
    list = raw and cmsgpack.unpack(raw) or {}
    lists[name] = list
  end
  list[#list + 1] = id
end

-- The join `id` has a window that opens with `input`.
local function opened_by(r, lists, input, id)
  link(r, lists, 'o:' .. input, id)
  local own = E.own(r, input)
  if string.byte(own, $OPENS_BYTE) == 0 then
    E.set_own(r, input, string.sub(own, 1, $OPENS_BYTE - 1) .. '\1' .. string.sub(own, $OPENS_BYTE + 1))
  end
end

-- Ties a new task to its inputs, some of which may have ended before.
local function connect(r, id, g, inputs, lists)
  local s, timed = E.state(r, id), g[$KIND] == $JOIN and g[$WITHIN] >= 0
  local good, bad, open, cause = 0, 0, false, nil
  for i = 1, #inputs do
    local input = inputs[i]
    local of, status = E.state(r, input), E.state(r, input)[$STATUS]
    link(r, lists, 'n:' .. input, id)
    if timed then
      opened_by(r, lists, input, id)
    end
    -- what waits for nothing but a resource has begun as far as windows go
    open = open or status ~= $WAITING or (of[$PENDING] == 0 and of[$RESOURCE] ~= '')
    if status == $SUCCEEDED then
      good = good + 1
    elseif status > $SUCCEEDED then
      bad, cause = bad + 1, cause or input
    end
  end
  r.dirty[id] = s
  if g[$KIND] == $JOIN then
    s[$DONE], s[$MISSED] = good, bad
    if timed and open then
      E.open_window(r, id)
    end
    E.check_join(r, id)
    return
  end
  s[$PENDING] = s[$PENDING] - good
  if cause then
    E.push(r, id, $SKIPPED, 0, E.field(r, 'e:' .. cause) or $INPUT_CANCELLED_ERROR, cause, false)
  elseif s[$PENDING] == 0 then
    E.make_ready(r, id)
  end
end

-- Adds those of `tasks` that do not exist; "can_add" was asked. Returns their ids.
function E.add(r, by, tasks)
  local owner, count, new, lists = owner_for(r, by), tonumber(E.field(r, 'added') or 0), {}, {}
  for i = 1, #tasks do
    local id, g, event, inputs, fields, resource = unpack(tasks[i])
    if not E.own(r, id) then
      g[$OWNER] = owner
      r.s[id] = E.fresh(#inputs, resource)
      E.set_own(r, id, cmsgpack.pack(g))
      for k = 1, #fields, 2 do
        E.set(r, fields[k], fields[k + 1])
      end
      E.put(r, 'z:' .. string.format('%d', count), id)
      count, new[#new + 1] = count + 1, id
      E.log_task(r, 'task.added', id, ',' .. event)
      connect(r, id, g, inputs, lists)
    end
  end
  for name, list in pairs(lists) do
    E.set(r, name, cmsgpack.pack(list))
  end
  if new[1] then
    E.set(r, 'added', string.format('%d', count))
  end
  return new
end

-- The agent that `id` belongs to has its answer.
function E.answer(r, id, value, degraded)
  local owner = E.owner(r, id)
  if E.state(r, owner)[$STATUS] == $EXPANDED then
    E.put(r, 'r:' .. owner, value)
    E.push(r, owner, $SUCCEEDED, degraded, nil, nil, false)
  end
end
