#!lua name=service
-- The service in Redis: redis-cli -x FUNCTION LOAD REPLACE < redis_service.lua

local VERSION = 1

-- Return how many Collatz steps lead from a number to 1. For 0 it never ends: a bug, on purpose.
local function collatz(keys, arguments)
  local number = tonumber(arguments[1])
  if not number then
    return redis.error_reply('ERR n must be a number')
  end
  local steps = 0
  while number ~= 1 do
    if number % 2 == 1 then number = number * 3 + 1 else number = number / 2 end
    steps = steps + 1
  end
  return steps
end

redis.register_function('collatz', collatz)
redis.register_function('version', function() return VERSION end)
