-- The unit of work: what this call has read of each run, and what it will write. All reads and decisions of all
-- items come first, the writes last (see "flush"), so that an error on the way leaves nothing half done.
-- What this call has made once: specs by their packed form, beginnings of events by kind, numbers as text.
local E = { now = 0, list = {}, due = {}, aborts = {}, off = {}, landed = {}, specs = {}, begun = {}, texts = {} }

-- The run at place `at` of the batch.
function E.open(at, key, log, id)
  local r = E.list[at]
  if not r then
    -- s: decoded states by task, dirty: those to write; g: packed specs by task; f: raw static fields; out: other
    -- fields to write; events: to append. Named here for the table's size, and made when needed: raw and m (the head
    -- as it is stored, and decoded), ready (tasks), q (ends to work off, from qh)
    r = {
      key = key, log = log, id = id, s = {}, dirty = {}, g = {}, f = {}, out = {}, events = {},
      raw = nil, ready = nil, q = nil, qh = nil, m = nil,
    }
    E.list[at] = r
  end
  return r
end

-- Gets fields that steps change with "set" only. False where there is none.
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

-- Takes note of a field that was read; what an earlier item of the batch has set wins.
function E.keep(r, name, value)
  if r.f[name] == nil then
    r.f[name] = value
  end
end

function E.put(r, name, value)
  local out = r.out
  local n = #out
  out[n + 1], out[n + 2] = name, value
end

-- Writes a field that later steps of this call may read.
function E.set(r, name, value)
  r.f[name] = value
  E.put(r, name, value)
end

-- An event of the run; `more` is empty, or begins with a comma.
function E.log(r, kind, more)
  r.events[#r.events + 1] = '{"at":' .. E.now_text .. ',"type":"' .. kind .. '"' .. more .. '}'
end

-- An event of a task of it.
function E.log_task(r, kind, id, more)
  local begun = E.begun[kind]
  if not begun then
    begun = '{"at":' .. E.now_text .. ',"type":"' .. kind .. '","task":"'
    E.begun[kind] = begun
  end
  r.events[#r.events + 1] = begun .. id .. '"' .. more .. '}'
end

-- A whole number as text: few different ones come, and each would be made anew.
function E.text(number)
  local text = E.texts[number]
  if not text then
    text = string.format('%d', number)
    E.texts[number] = text
  end
  return text
end

-- Sets when somebody must look at a task ('' for the run) again; 0 for never.
function E.set_due(r, id, at)
  E.due[id == '' and r.id or r.id .. ':' .. id] = at
end

function E.abort(r, id)
  E.aborts[#E.aborts + 1] = { r, id }
end

function E.sooner(a, b)
  if a == 0 then return b end
  if b == 0 then return a end
  return a < b and a or b
end
