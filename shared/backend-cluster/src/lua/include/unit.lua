-- The unit of work: what this call has read of each run, and what it will write. All reads and decisions of all
-- items come first, the writes last (see "flush"), so that an error on the way leaves nothing half done.
local E = { now = 0, list = {}, due = {}, aborts = {}, off = {}, landed = {} }

-- The run at place `at` of the batch.
function E.open(at, key, log, id)
  local r = E.list[at]
  if not r then
    -- s: decoded states by task, dirty: those to write; out: other fields to write; events: to append
    -- made when needed: f (raw static fields), x (decoded specs), ready (tasks), q (ends to work off)
    r = { key = key, log = log, id = id, s = {}, dirty = {}, out = {}, events = {} }
    E.list[at] = r
  end
  return r
end

-- Gets fields that steps change with "set" only. False where there is none.
function E.fetch(r, fields)
  local f, want, n = r.f or {}, {}, 0
  r.f = f
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
  if not r.f or r.f[name] == nil then
    E.fetch(r, { name })
  end
  return r.f[name]
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

-- Takes note of the raw head of the run; says whether there is such a run.
function E.found(r, raw)
  if r.raw == nil then
    r.raw = raw
  end
  return r.raw
end

-- Whether the run has ended.
function E.over(r)
  return (r.m and r.m[$RUN_STATUS] or string.byte(r.raw, $RUN_STATUS_BYTE)) ~= $RUN_RUNNING
end

-- The head of the run, decoded.
function E.head(r)
  if not r.m then
    r.m = cmsgpack.unpack(r.raw)
  end
  return r.m
end

-- The head of the run, to be changed.
function E.change_head(r)
  r.head_dirty = true
  return E.head(r)
end

-- The run's entry in the index of runs.
function E.listed(r)
  local m = E.head(r)
  return m[$TENANT] .. ':' .. string.format('%014.0f', m[$RUN_CREATED]) .. ':' .. r.id
end

-- Whether the retention of an ended run goes on; somebody looks at it again when it has passed.
function E.kept(r)
  local m = E.head(r)
  local till = m[$RUN_ENDED] + (m[$RUN_STATUS] == $RUN_FAILED and m[$KEEP_FAILED] or m[$KEEP])
  if till > E.now then
    E.set_due(r, '', till)
    return true
  end
end

-- From now on the run counts as under way for its API key, if it has one.
function E.takes_off(r)
  local key = E.head(r)[$API_KEY]
  if key ~= '' then
    E.off[#E.off + 1] = 0
    E.off[#E.off + 1] = key .. ':' .. r.id
  end
end

-- From now on it does not.
function E.lands(r)
  local key = E.head(r)[$API_KEY]
  if key ~= '' then
    E.landed[#E.landed + 1] = key .. ':' .. r.id
  end
end

function E.log(r, kind, rest)
  r.events[#r.events + 1] = '{"at":' .. E.now_text .. ',"type":"' .. kind .. '"' .. rest .. '}'
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
