-- The head of a run: what transitions change of it, and the indexes that it stands in.
--- @include "unit"

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

local function whole(raw, _, ...)
  -- the header of an array of 16 values or more, whose number stands in the third byte
  if string.byte(raw) ~= 220 or string.byte(raw, 3) ~= select('#', ...) then
    error({ err = 'DAMAGED packed values are not whole' })
  end
  return { ... }
end

-- Decodes an array of 16 to 64 values, more than any has: without its header, so that the table has its size from the start.
function E.values(raw)
  return whole(raw, cmsgpack.unpack_limit(raw, 64, math.min(3, #raw)))
end

-- The head of the run, decoded.
function E.head(r)
  if not r.m then
    r.m = E.values(r.raw)
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
