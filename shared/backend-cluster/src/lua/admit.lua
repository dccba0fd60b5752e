#!lua
-- Takes one request out of the bucket of an API key: the port of `trireme_model::Bucket::take`.
--
-- KEYS[1] rate        hash: requests left, and when that was; absent while it is full
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] per_minute  requests that it fills by in a minute, at least 1
-- ARGV[3] burst       requests that it holds, at least 1
-- RETURNS {1 where the request may go on, else 0, requests left, ms until there is one}
-- EMITS   nothing
-- REPEAT  takes another one
--- @include "unit"
--- @include "clock"

E.clock(ARGV[1])
local per_minute, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(known[1] or burst), tonumber(known[2] or E.now)
left = math.min(burst, left + math.max(0, E.now - at) * per_minute / 60000)
local allowed = left >= 1
if allowed then
  left = left - 1
end
redis.call('HSET', KEYS[1], 'left', string.format('%.17g', left), 'at', E.now_text)
-- it is full again by then, and an absent one counts as full
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - left) * 60000 / per_minute) + 3600000)
return { allowed and 1 or 0, math.floor(left), math.ceil(math.max(0, 1 - left) * 60000 / per_minute) }
