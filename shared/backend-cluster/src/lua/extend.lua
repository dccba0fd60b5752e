#!lua
-- Gives running maps more children and releases as many of them as may run.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per chunk of children; `args` is a list of JSON texts for the children from `start`
-- ITEM at, task, token, start, args
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code, number of children}
-- EMITS   nothing
-- REPEAT  the same answer; children that are known already stay as they are
--- @include "settle"
--- @include "clock"
--- @include "flush"

local function extend_one(r, id, token, start, args)
  local s = E.begin(r, id)
  if s == nil then
    return { $GONE, 0 }
  end
  if E.over(r) then
    return { $OVER, 0 }
  end
  if not s then
    return { $GONE, 0 }
  end
  local g = E.spec(r, id)
  if s[$STATUS] ~= $RUNNING or s[$TOKEN] ~= token then
    return { $STALE, 0 }
  end
  local width, count = s[$WIDTH] or 0, #args
  if not g or g[$KIND] ~= $MAP or start > width or start + count > $MAX_WIDTH or count > $EXTEND_CHUNK then
    return { $EXTEND_REFUSED, 0 }
  end
  for i = width - start + 1, count do
    E.put(r, 'a:' .. id .. '/' .. string.format('%d', start + i - 1), args[i])
  end
  s[$WIDTH], s[$NEXT_CHILD], s[$ACTIVE] = math.max(width, start + count), s[$NEXT_CHILD] or 0, s[$ACTIVE] or 0
  r.dirty[id] = s
  E.release(r, id)
  return { $HOLDS, s[$WIDTH] }
end

E.clock(ARGV[1])
local runs, items, answers = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5]), {}
for i = 1, #items do
  local at, task, token, start, args = unpack(items[i])
  local r = E.open(at, KEYS[2 * at], KEYS[1 + 2 * at], runs[at])
  answers[i] = extend_one(r, task, token, start, args)
end
return E.flush(KEYS[1], ARGV[2], ARGV[3], answers)
