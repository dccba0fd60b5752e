-- Writes what the items decided, then emits. The order is such that an error between two calls (a key of a
-- foreign type) loses nothing that the sweep would not find: entries of the due index are added before the state
-- changes, and removed after it.
--- @include "unit"

local function in_chunks(command, key, list)
  for from = 1, #list, $CHUNK do
    redis.call(command, key, unpack(list, from, math.min(from + $CHUNK - 1, #list)))
  end
end

local function write_hash(r)
  local out = r.out
  for id, s in pairs(r.dirty) do
    out[#out + 1] = 's:' .. id
    out[#out + 1] = cmsgpack.pack(s)
  end
  if r.head_dirty then
    out[#out + 1] = 'm'
    out[#out + 1] = cmsgpack.pack(r.m)
  end
  in_chunks('HSET', r.key, out)
end

local function split_due(r, add, remove)
  for id, at in pairs(r.due) do
    local member = id == '' and r.id or r.id .. ':' .. id
    if at == 0 then
      remove[#remove + 1] = member
    else
      add[#add + 1] = at
      add[#add + 1] = member
    end
  end
end

-- Tasks that are ready still; of a run that has ended nobody needs to know them.
local function hints_of(r, at, hints)
  if r.m[$RUN_STATUS] ~= $RUN_RUNNING then
    return
  end
  for i = 1, #r.ready do
    local id = r.ready[i]
    if id and E.state(r, id)[$STATUS] == $READY then
      local x = E.exec(r, id)
      hints[#hints + 1] = { at, id, x[$POOL], x[$PRIORITY] }
    end
  end
end

-- Returns the reply of every batched script, packed: time, answers, hints, aborts, errors of items.
function E.flush(due_key, watch_channel, abort_channel, answers)
  local add, remove, hints, aborts, errors, woken = {}, {}, {}, {}, {}, {}
  local good = {}
  for at, r in ipairs(E.list) do
    if r.broken then
      for _, i in ipairs(r.items) do
        errors[#errors + 1] = { i, r.broken }
      end
    elseif r.m then
      good[#good + 1] = r
      hints_of(r, at, hints)
      split_due(r, add, remove)
      for _, id in ipairs(r.aborts) do
        aborts[#aborts + 1] = { at, id }
      end
    end
  end
  for _, r in ipairs(good) do
    if #r.events > 0 then
      in_chunks('RPUSH', r.log, r.events)
      if r.m[$WATCHED] == 1 then
        woken[#woken + 1] = r.id
      end
    end
  end
  in_chunks('ZADD', due_key, add)
  for _, r in ipairs(good) do
    write_hash(r)
  end
  in_chunks('ZREM', due_key, remove)
  if #woken > 0 then
    redis.call('PUBLISH', watch_channel, table.concat(woken, ' '))
  end
  if #aborts > 0 then
    local texts = {}
    for i, abort in ipairs(aborts) do
      local r = E.list[abort[1]]
      texts[i] = abort[2] == '' and r.id or r.id .. ':' .. abort[2]
    end
    redis.call('PUBLISH', abort_channel, table.concat(texts, ' '))
  end
  return cmsgpack.pack({ E.now, answers, hints, aborts, errors })
end
