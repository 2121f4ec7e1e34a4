-- settled.lua: whether what is not there does not exist.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker.  Returns 1, or 0: the hold is on and it may still come back.
-- Invariant: 1 only from the server, and in the epoch, that everybody's facts have been put back to.
return hold and 0 or 1
