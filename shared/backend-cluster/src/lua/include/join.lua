-- Joins and maps: when they fire, what they freeze, whom they let go.
--- @include "ready"

function E.fetch_tasks(r, ids)
  local want = {}
  for i = 1, #ids do
    want[2 * i - 1], want[2 * i] = 's:' .. ids[i], 'g:' .. ids[i]
  end
  E.fetch(r, want)
end

-- Makes children of `map` ready until `at_once` of them are at work or none is left.
function E.release(r, map)
  local s, at_once = E.state(r, map), E.spec(r, map)[$AT_ONCE]
  while s[$WIDTH] and s[$ACTIVE] < at_once and s[$NEXT_CHILD] < s[$WIDTH] do
    local child = map .. '/' .. string.format('%d', s[$NEXT_CHILD])
    -- a replayed run has children with results ahead of those that are still to be released
    local ahead = s[$DONE] + s[$MISSED] + s[$ACTIVE] > s[$NEXT_CHILD] and E.field(r, 's:' .. child)
    s[$NEXT_CHILD] = s[$NEXT_CHILD] + 1
    r.dirty[map] = s
    r.g[child] = false
    if not ahead then
      s[$ACTIVE] = s[$ACTIVE] + 1
      r.s[child] = E.fresh(0)
      E.make_ready(r, child)
    end
  end
end

-- Freezes the inputs that a join merges, `*` for all, and queues its end.
local function fire(r, id, width, degraded)
  local s, g = E.state(r, id), E.spec(r, id)
  local frozen = '*'
  if s[$DONE] ~= width then
    local ids, want, bits = {}, {}, {}
    if g[$KIND] == $JOIN then
      ids = cmsgpack.unpack(E.field(r, 'i:' .. id))
    else
      for i = 1, width do
        ids[i] = id .. '/' .. string.format('%d', i - 1)
      end
    end
    for i = 1, width do
      want[i] = 's:' .. ids[i]
    end
    E.fetch(r, want)
    for i = 1, width do
      local state, raw = r.s[ids[i]], r.f[want[i]]
      -- no need to unpack thousands of states
      local status = state and state[$STATUS] or (raw and string.byte(raw, $STATUS_BYTE)) or $WAITING
      bits[i] = status == $SUCCEEDED and '1' or '0'
    end
    frozen = table.concat(bits)
  end
  s[$FROZEN] = frozen
  r.dirty[id] = s
  E.push(r, id, $SUCCEEDED, degraded, nil, nil, false)
end

local function width_of(r, id, s, g)
  if g[$KIND] == $JOIN then
    return g[$INPUTS]
  end
  return s[$WIDTH] or 0
end

-- Fires or fails a join, or a map over its children, as soon as its policy allows; once. Says whether it did.
function E.check_join(r, id)
  local g, s = E.spec(r, id), E.state(r, id)
  if not g or g[$NEED] == $NO_POLICY or s[$FROZEN] ~= '' then
    return false
  end
  if s[$STATUS] ~= (g[$KIND] == $JOIN and $WAITING or $EXPANDED) then
    return false
  end
  local width = width_of(r, id, s, g)
  local needed = g[$NEED] == $NEED_ALL and width or g[$NEED]
  local left = width - s[$DONE] - s[$MISSED]
  if s[$DONE] >= needed then
    fire(r, id, width, 0)
    return true
  end
  if s[$DONE] + left < needed then
    if g[$ON_MISS] == $MISS_FAIL then
      E.push(r, id, $FAILED, 0, $UNMET_ERROR, nil, true)
    elseif left == 0 then
      fire(r, id, width, 1)
    else
      return false
    end
    return true
  end
  return false
end

-- The window of a join, or of a map over its children, has closed.
function E.window_closed(r, id)
  local g, s = E.spec(r, id), E.state(r, id)
  if g[$ON_MISS] == $MISS_FAIL then
    E.push(r, id, $FAILED, 0, $WINDOW_ERROR, nil, true)
  else
    fire(r, id, width_of(r, id, s, g), 1)
  end
end

-- Books the end of a map's child and lets the next one start.
function E.child_ended(r, map, good)
  local s, count = E.state(r, map), good and $DONE or $MISSED
  s[count], s[$ACTIVE] = s[count] + 1, s[$ACTIVE] - 1
  r.dirty[map] = s
  if not E.check_join(r, map) then
    E.release(r, map)
  end
end

-- `id` ended without all of its inputs: cancels those that nobody else waits for.
function E.drop_losers(r, id)
  local g, s = E.spec(r, id), E.state(r, id)
  if g[$INPUTS] == 0 or (g[$KIND] == $JOIN and s[$DONE] + s[$MISSED] == g[$INPUTS]) then
    return
  end
  E.drop_unused(r, cmsgpack.unpack(E.field(r, 'i:' .. id)))
end

-- Cancels those of `tasks` that nobody waits for.
function E.drop_unused(r, tasks)
  local open, want = {}, {}
  E.fetch_tasks(r, tasks)
  for i = 1, #tasks do
    if E.state(r, tasks[i])[$STATUS] < $SUCCEEDED then
      open[#open + 1] = tasks[i]
      want[#want + 1] = 'n:' .. tasks[i]
    end
  end
  E.fetch(r, want)
  for i = 1, #open do
    local raw, needed = r.f[want[i]], false
    local others = raw and cmsgpack.unpack(raw) or {}
    E.fetch_tasks(r, others)
    for k = 1, #others do
      needed = needed or E.state(r, others[k])[$STATUS] < $SUCCEEDED
    end
    if not needed then
      E.push(r, open[i], $CANCELLED, 0, nil, nil, true)
    end
  end
end
