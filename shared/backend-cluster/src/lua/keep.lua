#!lua
-- Keeps a large result of a run before it is recorded by reference. It goes when the run does.
--
-- KEYS[1] run         hash of the run
-- KEYS[2] blobs       hash of the run's large results by their sha256
-- ARGV[1] digest      sha256 of the value in hex
-- ARGV[2] value       the result
-- ARGV[3] wait        how many ms it stays where there is no such run yet; '' for not at all
-- RETURNS 1, or 0 when there is no such run
-- EMITS   nothing
-- REPEAT  changes nothing, but for the time that it stays

local known = redis.call('EXISTS', KEYS[1])
if known == 0 and ARGV[3] == '' then
  return 0
end
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
if known == 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return known
