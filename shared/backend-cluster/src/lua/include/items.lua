-- The items of a batch: they stand one after the other, each `width` packed values.
--- @include "unit"

local function step_on(answers, step, next, ...)
  answers[#answers + 1] = step(...)
  return next
end

-- Calls `step` with the values of each item; returns its answers, in order.
function E.each(items, width, step)
  local answers, next = {}, 0
  while next >= 0 do
    next = step_on(answers, step, cmsgpack.unpack_limit(items, width, next))
  end
  return answers
end
