-- The unit of work: what this call has read of each run, and what it will write. All reads and decisions of all
-- items come first, the writes last (see "flush"), so that an error on the way leaves nothing half done.
local E = { now = 0, list = {}, by_key = {} }

function E.open(key, log, id)
  local r = E.by_key[key]
  if not r then
    r = {
      key = key, log = log, id = id,
      f = {},                    -- field -> raw value, false where there is none
      s = {}, x = {}, p = {},    -- decoded: states, specs, parents
      dirty = {}, out = {},      -- states to write, pairs to write
      new = false,               -- the run is being made: the store has nothing of it
      events = {}, due = {},     -- task ('' is the run) -> next time to look, 0 for never
      ready = {}, aborts = {}, q = {}, qh = 1, items = {},
    }
    E.by_key[key] = r
    E.list[#E.list + 1] = r
  end
  return r
end

function E.fetch(r, fields)
  local f, want, n = r.f, {}, 0
  for i = 1, #fields do
    local name = fields[i]
    if f[name] == nil then
      if r.new then
        f[name] = false
      else
        n = n + 1
        want[n] = name
      end
    end
  end
  for from = 1, n, $CHUNK do
    local to = math.min(from + $CHUNK - 1, n)
    local got = redis.call('HMGET', r.key, unpack(want, from, to))
    for i = from, to do
      f[want[i]] = got[i - from + 1]
    end
  end
end

function E.field(r, name)
  if r.f[name] == nil then
    E.fetch(r, { name })
  end
  return r.f[name]
end

function E.put(r, name, value)
  local out = r.out
  out[#out + 1] = name
  out[#out + 1] = value
  r.f[name] = value
end

-- The head of the run, false when there is no such run.
function E.head(r)
  local m = r.m
  if m == nil then
    local raw = E.field(r, 'm')
    m = raw and cmsgpack.unpack(raw)
    r.m = m
  end
  return m
end

function E.log(r, kind, rest)
  r.events[#r.events + 1] = '{"at":' .. E.now_text .. ',"type":"' .. kind .. '"' .. rest .. '}'
end

function E.sooner(a, b)
  if a == 0 then return b end
  if b == 0 then return a end
  return a < b and a or b
end

-- Runs one item. An error in it (a key of a foreign type, a field that can't be read) spoils its run for the
-- rest of the call: none of the run's items are written.
function E.try(i, r, step, ...)
  r.items[#r.items + 1] = i
  if r.broken then
    return { 0 }
  end
  local ok, answer = pcall(step, r, ...)
  if ok then
    return answer
  end
  r.broken = type(answer) == 'table' and answer.err or tostring(answer)
  return { 0 }
end
