-- prelude.lua: put before the scripts of the library. What a call knows is set anew by register(); Redis keeps the rest.
-- Keys are built from the tag of KEYS[1] = parley:{…}:meta, so all live in one slot.
local call, KEYS, ARGV, TAG, now, at

-- Arguments, one after another.
local function arg()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(arg()) end

-- Lua writes large numbers as 1.8e+15; Redis must see all digits.
local function text(value) return string.format('%.0f', value) end

local function register(name, script)
  redis.register_function(name, function(keys, args)
    call, KEYS, ARGV, at = redis.call, keys, args, 0  -- globals are not to be had while Redis loads this
    TAG = string.sub(KEYS[1], 1, -5)
    local clock = call('TIME')
    now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    return script()
  end)
end
