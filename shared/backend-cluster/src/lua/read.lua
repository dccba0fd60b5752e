#!lua flags=no-writes
-- Reads all of a run as of one moment.
--
-- KEYS[1] run         hash of the run
-- KEYS[2] due         zset: next time to look
-- ARGV[1] id          of the run
-- RETURNS {fields and values in turn, members of the due index and their times in turn}
-- EMITS   nothing
-- REPEAT  the same answer while nothing changes

local fields, due = redis.call('HGETALL', KEYS[1]), {}
local members = { ARGV[1] }
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' then
    members[#members + 1] = ARGV[1] .. ':' .. string.sub(fields[i], 3)
  end
end
for from = 1, #members, $CHUNK do
  local to = math.min(from + $CHUNK - 1, #members)
  local scores = redis.call('ZMSCORE', KEYS[2], unpack(members, from, to))
  for i = from, to do
    if scores[i - from + 1] then
      due[#due + 1] = members[i]
      due[#due + 1] = scores[i - from + 1]
    end
  end
end
return { fields, due }
