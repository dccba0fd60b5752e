#!lua flags=no-writes
-- Says which entries of the due index have come.
--
-- KEYS[1] due         zset: next time to look
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] limit       at most this many
-- RETURNS the members, soonest first
-- EMITS   nothing
-- REPEAT  the same answer at the same time
--- @include "unit"
--- @include "clock"

E.clock(ARGV[1])
return redis.call('ZRANGE', KEYS[1], '-inf', E.now_text, 'BYSCORE', 'LIMIT', 0, ARGV[2])
