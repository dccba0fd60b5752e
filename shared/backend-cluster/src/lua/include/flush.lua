-- Writes what the items decided, then emits. The order is such that an error between two calls (a key of a
-- foreign type) loses nothing that the sweep would not find: entries of the due index are added before the state
-- changes, and removed after it.
--- @include "task"

local function in_chunks(command, key, list)
  local n = #list
  if n > 0 and n <= $CHUNK then
    return redis.call(command, key, unpack(list))
  end
  for from = 1, n, $CHUNK do
    redis.call(command, key, unpack(list, from, math.min(from + $CHUNK - 1, n)))
  end
end

local function write_hash(r)
  local out = r.out
  local n = #out
  for id, s in pairs(r.dirty) do
    out[n + 1], out[n + 2] = 's:' .. id, cmsgpack.pack(s)
    n = n + 2
  end
  if r.head_dirty then
    out[n + 1], out[n + 2] = 'm', cmsgpack.pack(r.m)
  end
  in_chunks('HSET', r.key, out)
end

-- Tasks that are ready still, four values each; of a run that has ended nobody needs to know them.
local function hints_of(r, at, hints)
  if not r.ready or E.over(r) then
    return
  end
  for i = 1, #r.ready do
    local id = r.ready[i]
    if id and E.state(r, id)[$STATUS] == $READY then
      local x = E.exec(r, id)
      local n = #hints
      hints[n + 1], hints[n + 2], hints[n + 3], hints[n + 4] = at, id, x[$POOL], x[$PRIORITY]
    end
  end
end

local function watched(r)
  return (r.m and r.m[$WATCHED] or string.byte(r.raw, $WATCHED_BYTE)) == 1
end

-- Returns the reply of every batched script, packed: time, answers, hints, aborts.
function E.flush(due_key, flying_key, watch_channel, abort_channel, answers)
  local add, adds, remove, hints, aborts, woken = {}, 0, {}, {}, {}, nil
  local list = E.list
  for at = 1, #list do
    hints_of(list[at], at, hints)
  end
  for at = 1, #list do
    local r = list[at]
    if r.events[1] then
      in_chunks('RPUSH', r.log, r.events)
      if watched(r) then
        woken = woken and woken .. ' ' .. r.id or r.id
      end
    end
  end
  for member, at in pairs(E.due) do
    if at == 0 then
      remove[#remove + 1] = member
    else
      add[adds + 1], add[adds + 2] = at, member
      adds = adds + 2
    end
  end
  in_chunks('ZADD', due_key, add)
  -- as in the due index: a run too many is found at its purge, a run too few would never be
  in_chunks('ZADD', flying_key, E.off)
  for at = 1, #list do
    write_hash(list[at])
  end
  in_chunks('ZREM', due_key, remove)
  in_chunks('ZREM', flying_key, E.landed)
  if woken then
    redis.call('PUBLISH', watch_channel, woken)
  end
  if E.aborts[1] then
    local texts = {}
    for i, abort in ipairs(E.aborts) do
      local r, id = abort[1], abort[2]
      aborts[i] = { r.id, id }
      texts[i] = id == '' and r.id or r.id .. ':' .. id
    end
    redis.call('PUBLISH', abort_channel, table.concat(texts, ' '))
  end
  return cmsgpack.pack({ E.now, answers, hints, aborts })
end
