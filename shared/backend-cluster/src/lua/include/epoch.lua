-- What holds for the whole store, read at most once per call: its epoch, without which it was emptied behind our
-- back, and its paused pools.
--- @include "task"
function E.read_epoch(meta)
  local got, pools
  local function read()
    got = got or redis.call('HMGET', meta, 'epoch', 'paused')
    return got
  end
  E.epoch = function()
    if not read()[1] then
      error({ err = 'NOEPOCH the store was emptied' })
    end
    return got[1]
  end
  E.paused = function(r, id)
    if pools == nil then
      pools = false
      for pool in string.gmatch(read()[2] or '', '%S+') do
        pools = pools or {}
        pools[pool] = true
      end
    end
    return pools and pools[E.exec(r, id)[$POOL]]
  end
end

-- A ready task waits for its pool to be resumed; nobody need look at it before, but for its deadline.
function E.hold(r, id, s)
  E.set_due(r, id, E.sooner(E.now + $REPUBLISH_CAP_MS, s[$DEADLINE]))
  local held, n = E.held or {}, E.held and #E.held or 0
  E.held = held
  held[n + 1], held[n + 2] = 0, E.exec(r, id)[$POOL] .. ':' .. r.id .. ':' .. id
end

-- First the index: an entry whose task is not ready any more is harmless.
function E.flush_held(held)
  if E.held then
    redis.call('ZADD', held, unpack(E.held))
  end
end
