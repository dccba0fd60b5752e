#!lua flags=no-writes
-- Says which entries of the due index have come, and when the next one comes.
--
-- KEYS[1] due         zset: next time to look
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] limit       at most this many
-- RETURNS {members, soonest first; ms from now until the next one, or -1}
-- EMITS   nothing
-- REPEAT  the same answer at the same time
--- @include "unit"
--- @include "clock"

E.clock(ARGV[1])
local due = redis.call('ZRANGE', KEYS[1], '-inf', E.now_text, 'BYSCORE', 'LIMIT', 0, ARGV[2])
local next = redis.call('ZRANGE', KEYS[1], '(' .. E.now_text, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
return { due, next[2] and tonumber(next[2]) - E.now or -1 }
