-- Runs of an API key that are under way in this shard.
--- @include "unit"
function E.flying(flying, key)
  return redis.call('ZLEXCOUNT', flying, '[' .. key .. ':', '(' .. key .. ';')
end
