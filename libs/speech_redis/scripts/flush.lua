-- flush.lua: forgets all recordings of a project.
-- KEYS: 1 parley:{voice:PROJECT}:meta.  Returns the new generation.
-- Invariant: what was published or claimed before is never found again; its keys go with their lifetime.
return call('HINCRBY', KEYS[1], 'generation', 1)
