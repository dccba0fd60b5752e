#!lua
-- Gives running maps more children and releases as many of them as may run; gives agents more tasks; lets tool calls
-- wait for what they touch.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2] flying      zset: runs under way by their API keys
-- KEYS[3..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per chunk; `args` is a list of JSON texts for the children from `start`; where that
--                     is -1, `tasks` is a list as in "add", false or 0; `resource` is what a tool
--                     call touches, or 0
-- ITEM at, task, token, start, args, tasks, resource
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code, number of children or of new tasks}
-- EMITS   task.added and what follows: task.skipped, ...
-- REPEAT  the same code; what is known already stays as it is; STALE after QUEUED
--- @include "add"
--- @include "items"
--- @include "clock"
--- @include "flush"

local function extend_map(r, id, s, start, args)
  local g, width, count = E.spec(r, id), s[$WIDTH] or 0, #args
  if not g or g[$KIND] ~= $MAP or start > width or start + count > $MAX_WIDTH or count > $EXTEND_CHUNK then
    return { $REFUSED, 0 }
  end
  for i = width - start + 1, count do
    E.put(r, 'a:' .. id .. '/' .. string.format('%d', start + i - 1), args[i])
  end
  s[$WIDTH], s[$NEXT_CHILD], s[$ACTIVE] = math.max(width, start + count), s[$NEXT_CHILD] or 0, s[$ACTIVE] or 0
  r.dirty[id] = s
  E.release(r, id)
  return { $HOLDS, s[$WIDTH] }
end

local function extend_agent(r, id, tasks)
  if not tasks or not E.can_add(r, id, tasks, $MAX_ADDED - $KEPT_FOR_ENDS) then
    return { $REFUSED, 0 }
  end
  local new, raw = E.add(r, id, tasks), E.field(r, 'y:' .. id)
  local added = raw and cmsgpack.unpack(raw) or {}
  for i = 1, #new do
    added[#added + 1] = new[i]
  end
  if new[1] then
    E.set(r, 'y:' .. id, cmsgpack.pack(added))
  end
  E.settle_all(r)
  return { $HOLDS, #new }
end

local function touch(r, id, s, resource)
  if E.exec(r, id)[$KIND] ~= $TOOL or resource == '' or #resource > $MAX_RESOURCE then
    return { $REFUSED, 0 }
  end
  if s[$RESOURCE] ~= resource then
    E.leave_line(r, id)
    s[$RESOURCE] = resource
    r.dirty[id] = s
    if not E.enter_line(r, id) then
      s[$STATUS], s[$TOKEN], s[$DEADLINE] = $WAITING, '', 0
      E.set_due(r, id, 0)
      return { $QUEUED, 0 }
    end
  end
  return { $HOLDS, 0 }
end

local function extend_one(r, id, token, start, args, tasks, resource)
  local s = E.begin(r, id)
  if s == nil then
    return { $GONE, 0 }
  end
  if E.over(r) or E.orphaned(r, id) then
    return { $OVER, 0 }
  end
  if not s then
    return { $GONE, 0 }
  end
  if s[$STATUS] ~= $RUNNING or s[$TOKEN] ~= token then
    return { $STALE, 0 }
  end
  if start >= 0 then
    return extend_map(r, id, s, start, args)
  end
  if resource ~= 0 then
    return touch(r, id, s, resource)
  end
  return extend_agent(r, id, tasks)
end

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 7, function(at, task, token, start, args, tasks, resource)
  local r = E.open(at, KEYS[1 + 2 * at], KEYS[2 + 2 * at], runs[at])
  return extend_one(r, task, token, start, args, tasks, resource)
end)
return E.flush(KEYS[1], KEYS[2], ARGV[2], ARGV[3], answers)
