-- What attempts that reported and do not hold their task any more were told: a repeat is told the same.
--- @include "task"

-- A list of {token, answer, time}.
local function told(r, id)
  local raw = E.field(r, 'p:' .. id)
  return raw and cmsgpack.unpack(raw) or {}
end

-- Remembers what the attempt with `token` was told; the oldest is forgotten.
function E.tell(r, id, token, answer, at)
  local list = told(r, id)
  if #list == $MAX_TOLD then
    table.remove(list, 1)
  end
  list[#list + 1] = { token, answer, at }
  E.set(r, 'p:' .. id, cmsgpack.pack(list))
end

-- What it was told and the time that went with it, or nil.
function E.told(r, id, token)
  for _, entry in ipairs(told(r, id)) do
    if entry[1] == token then
      return entry[2], entry[3]
    end
  end
  return nil
end
