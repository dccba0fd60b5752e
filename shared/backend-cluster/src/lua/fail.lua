#!lua flags=allow-oom
-- Records the failures of attempts: schedules the next ones, or ends their tasks.
--
-- KEYS[1] due         zset: next time to look
-- KEYS[2] flying      zset: runs under way by their API keys
-- KEYS[3..] run, log  per run of the batch: its hash and the list of its events
-- ARGV[1] clock       '' for the server's; a time in ms in tests
-- ARGV[2] watch       channel: runs whose log has grown
-- ARGV[3] abort       channel: attempts that need not go on
-- ARGV[4] runs        packed: ids of the runs
-- ARGV[5] items       packed, one per attempt; `error` is JSON, `after` the Retry-After in ms or -1, `jitter`
--                     per mille, `usage` five numbers or 0
-- ITEM at, task, token, class, error, after, jitter, usage
-- RETURNS packed {time, answers, hints, aborts}; an answer is {code, time of the next attempt}
-- EMITS   task.retrying, or task.failed and what follows: task.skipped, run.failed, ...
-- REPEAT  with the same token: the same answer
--- @include "settle"
--- @include "holder"
--- @include "items"
--- @include "clock"
--- @include "flush"

-- The exponential bound of the wait before attempt `times + 1`.
local function bound(backoff, times)
  return math.min(backoff * 2 ^ math.min(times - 1, 20), $BACKOFF_CAP_MS)
end

-- The attempt failed at or after the run's deadline, which ends the run: the sweep would say so a moment later.
local function out_of_time(r, id, s, error)
  s[$STATUS], s[$ENDED_AT] = $FAILED, E.now
  E.set(r, 'e:' .. id, error)
  E.set_due(r, id, 0)
  E.log_task(r, 'task.failed', id, ',"error":' .. error)
  E.end_run(r, $RUN_FAILED, nil, $DEADLINE_ERROR)
  return { $FAIL_ENDED, 0 }
end

local function fail_one(r, id, token, class, error, after, jitter, usage)
  local n = 'n:' .. id
  local s, got, behind = E.begin(r, id, n, 'd')
  local stand, told_at = E.holder(r, id, s, token, usage)
  if stand == $HELD then
    return { $FAIL_ENDED, 0 }
  elseif stand ~= $HOLDS then
    return { stand, told_at }
  end
  E.keep(r, n, got[behind + 1])
  E.book(r, $USAGE, usage)
  local x, wait = E.exec(r, id), nil
  r.dirty[id] = s
  local deadline = got[behind + 2]
  if deadline and tonumber(deadline) <= E.now then
    return out_of_time(r, id, s, error)
  end
  if class == $CLASS_RELEASED then
    E.requeue(r, id)
    E.tell(r, id, token, $FAIL_RELEASED, 0)
    return { $FAIL_RELEASED, 0 }
  elseif class == $CLASS_RETRYABLE then
    s[$FAILURES] = s[$FAILURES] + 1
    if s[$FAILURES] < x[$MAX_ATTEMPTS] then
      -- full jitter: anywhere between none and the exponential bound
      wait = math.floor(bound(x[$BACKOFF], s[$FAILURES]) * jitter / 1000)
    end
  elseif class == $CLASS_RATE_LIMITED then
    s[$LIMITED] = s[$LIMITED] + 1
    wait = after >= 0 and after + math.floor(x[$BACKOFF] * jitter / 1000) or bound(x[$BACKOFF], s[$LIMITED])
    if s[$LIMITED] >= $MAX_LIMITED then
      wait, error = nil, $LIMITED_ERROR
    end
  end
  if not wait then
    E.push(r, id, $FAILED, 0, error, nil, false)
    E.settle_all(r)
    return { $FAIL_ENDED, 0 }
  end
  s[$STATUS], s[$TOKEN] = $RETRYING, ''
  local retry_at = E.sooner(E.now + math.max(wait, 1), s[$DEADLINE])
  E.tell(r, id, token, $FAIL_RETRYING, retry_at)
  E.set_due(r, id, retry_at)
  local at = string.format('%.0f', retry_at)
  E.log_task(r, 'task.retrying', id, ',"retry_at":' .. at .. ',"error":' .. error)
  return { $FAIL_RETRYING, retry_at }
end

E.clock(ARGV[1])
local runs = cmsgpack.unpack(ARGV[4])
local answers = E.each(ARGV[5], 8, function(at, task, token, class, error, after, jitter, usage)
  local r = E.open(at, KEYS[1 + 2 * at], KEYS[2 + 2 * at], runs[at])
  return fail_one(r, task, token, class, error, after, jitter, usage)
end)
return E.flush(KEYS[1], KEYS[2], ARGV[2], ARGV[3], answers)
