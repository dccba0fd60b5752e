-- Reads the server's clock, once per call: it moves inside a script. `override` is '' but in tests.
--- @include "unit"
function E.clock(override)
  if override == '' then
    local time = redis.call('TIME')
    E.now = time[1] * 1000 + math.floor(time[2] / 1000)
  else
    E.now = tonumber(override)
  end
  E.now_text = string.format('%.0f', E.now)
end
