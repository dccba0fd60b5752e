-- The index of dead letters: tasks in quarantine by the time they were put there.
--- @include "unit"

-- Takes note of a task that nobody finishes, by its run as well: with it goes the entry.
function E.quarantine(r, id)
  local raw, dead = E.field(r, 'dl'), E.dead or {}
  local tasks, n = raw and cmsgpack.unpack(raw) or {}, #dead
  tasks[#tasks + 1] = id
  E.set(r, 'dl', cmsgpack.pack(tasks))
  E.dead = dead
  dead[n + 1], dead[n + 2] = E.now, r.id .. ':' .. id
end

-- First the index: an entry without its task is harmless, a task in quarantine without its entry would not be found.
function E.bury(key)
  if E.dead then
    redis.call('ZADD', key, unpack(E.dead))
  end
end

-- Takes out the entries of a run; 'dl' was read before.
function E.exhume(r, key)
  local raw = E.field(r, 'dl')
  for _, id in ipairs(raw and cmsgpack.unpack(raw) or {}) do
    redis.call('ZREM', key, r.id .. ':' .. id)
  end
end
