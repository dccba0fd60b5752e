#!lua
-- Accepts runs: stores their graphs and makes the tasks without inputs ready.
--
-- KEYS[1] runs        zset: the runs of the shard by tenant and the time they were accepted
-- KEYS[2] due         zset: next time to look
-- KEYS[3] flying      zset: runs under way by their API keys
-- KEYS[4..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per run; `head` is its head without the times, `limit` its time limit in ms or
--                     -1, `most` how many runs of its API key may be under way or -1, `elsewhere` how many are in
--                     other shards, `roots` the tasks without inputs, `fields` names and values of everything else
-- ITEM at, fingerprint, head, limit, most, elsewhere, roots, fields
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code}
-- EMITS   run.started
-- REPEAT  EXISTS for the same fingerprint, CONFLICT for another; what was LIMITED is tried anew
--- @include "ready"
--- @include "flying"
--- @include "items"
--- @include "clock"
--- @include "flush"

local accepted, flying, starts = {}, {}, {}

-- Runs of an API key under way in this shard, those of this batch included.
local function count_flying(key)
  if not flying[key] then
    flying[key] = E.flying(KEYS[3], key)
  end
  return flying[key]
end

-- The state of a task that is ready from the start, as it is stored, and when to look at it: what "requeue" sets for
-- one. Thousands of tasks start with a run; those with the same time limit share it, for nothing changes it here.
local function start_of(limit)
  local start = starts[limit]
  if not start then
    local s = E.fresh(0)
    s[$STATUS], s[$READY_AT], s[$DEADLINE] = $READY, E.now, limit >= 0 and E.now + limit or 0
    start = { s, cmsgpack.pack(s), E.sooner(E.now + $REPUBLISH_MS, s[$DEADLINE]) }
    starts[limit] = start
  end
  return start
end

local function make_ready(r, id)
  local start = start_of(E.time_limit(r, id))
  r.s[id] = start[1]
  E.put(r, 's:' .. id, start[2])
  E.set_due(r, id, start[3])
  E.announce(r, id)
  E.open_windows(r, id)
end

local function submit_one(r, fingerprint, head, limit, most, elsewhere, roots, fields)
  -- twice in one batch: what the first one wrote is not in the store yet
  local known = r.fingerprint or redis.call('HGET', r.key, 'fp')
  if known then
    return { known == fingerprint and $SUBMIT_EXISTS or $SUBMIT_CONFLICT }
  end
  local key = head[$API_KEY]
  if key ~= '' and most >= 0 then
    if count_flying(key) + elsewhere >= most then
      return { $SUBMIT_LIMITED }
    end
    flying[key] = flying[key] + 1
  end
  r.m, r.head_dirty, r.new, r.fingerprint = head, true, true, fingerprint
  head[$RUN_CREATED] = E.now
  if limit >= 0 then
    fields[#fields + 1], fields[#fields + 2] = 'd', string.format('%.0f', E.now + limit)
    E.set_due(r, '', E.now + limit)
  end
  r.out = fields
  for i = 1, #fields, 2 do
    r.f[fields[i]] = fields[i + 1]
  end
  E.put(r, 'fp', fingerprint)
  E.log(r, 'run.started', '')
  for i = 1, #roots do
    make_ready(r, roots[i])
  end
  accepted[#accepted + 1] = 0
  accepted[#accepted + 1] = E.listed(r)
  E.takes_off(r)
  return { $SUBMIT_CREATED }
end

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 8, function(at, fingerprint, head, limit, most, elsewhere, roots, fields)
  local r = E.open(at, KEYS[2 + 2 * at], KEYS[3 + 2 * at], runs[at])
  return submit_one(r, fingerprint, head, limit, most, elsewhere, roots, fields)
end)
-- first the index: an entry without its run is harmless, a run without its entry would not be listed
if #accepted > 0 then
  redis.call('ZADD', KEYS[1], unpack(accepted))
end
return E.flush(KEYS[2], KEYS[3], ARGV[2], ARGV[3], answers)
