-- The epoch of the store, read at most once per call. Without one the store was emptied behind our back.
--- @include "unit"
function E.read_epoch(meta)
  local epoch
  E.epoch = function()
    epoch = epoch or redis.call('HGET', meta, 'epoch')
    if not epoch then
      error({ err = 'NOEPOCH the store was emptied' })
    end
    return epoch
  end
end
