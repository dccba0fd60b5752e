#!lua
-- Appends token deltas to the logs of their runs. Those of runs that have ended, and those past the bound of a
-- log, are dropped.
--
-- KEYS[1..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] runs        packed: ids of the runs
-- ARGV[4] items       packed, one per delta; `text` is a JSON text
-- ITEM at, task, attempt, text
-- RETURNS the number of deltas kept
-- EMITS   task.delta
-- REPEAT  appends once more
--- @include "unit"
--- @include "items"
--- @include "clock"

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[3])
E.each(ARGV[4], 4, function(at, task, attempt, text)
  local r = E.open(at, KEYS[2 * at - 1], KEYS[2 * at], runs[at])
  E.log_task(r, 'task.delta', task, ',"attempt":' .. E.text(attempt) .. ',"text":' .. text)
end)
local kept, woken = 0, {}
for _, r in ipairs(E.list) do
  local raw = redis.call('HGET', r.key, 'm')
  if raw and string.byte(raw, $RUN_STATUS_BYTE) == $RUN_RUNNING and redis.call('LLEN', r.log) < $MAX_DELTAS then
    redis.call('RPUSH', r.log, unpack(r.events))
    kept = kept + #r.events
    if string.byte(raw, $WATCHED_BYTE) == 1 then
      woken[#woken + 1] = r.id
    end
  end
end
if #woken > 0 then
  redis.call('PUBLISH', ARGV[2], table.concat(woken, ' '))
end
return kept
